"""QwenImagePipeline's text encoder, VAE decoder and tokenizer, as they are exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline
from torch import Tensor, nn

from budc.compiler.export.denoiser_call import DenoiserCall
from budc.compiler.export.masked_text import masked_text_source
from budc.compiler.export.sources import GraphSource
from budc.compiler.export.tokenizers import PipelineTokenizer
from budc.compiler.models.pipelines.latents import load_vae, normalisation, unpack
from budc.compiler.models.pipelines.qwen_image import QwenImageAdapter, text_length
from budc.policies.profile import ModelProfile
from budc.runtimes.exported.manifest import TextRule
from budc.runtimes.sampling.loading import loading


class _TokenStates(nn.Module):
    """The language model's states (N, tokens, width), those of the template before the prompt left out."""

    def __init__(self, language_model: nn.Module, template_tokens: int) -> None:
        super().__init__()
        self.language_model, self.template_tokens = language_model, template_tokens

    def forward(self, input_ids: Tensor) -> Tensor:
        # Text alone has the same position on all three axes (time, height, width).
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand(
            3, input_ids.shape[0], -1
        )
        states: Tensor = self.language_model(input_ids=input_ids, position_ids=positions).last_hidden_state
        return states[:, self.template_tokens :]


class _Rotations(nn.Module):
    """In place of the transformer's rotary embedding: the factors of one size, as constants."""

    def __init__(self, image: Tensor, text: Tensor) -> None:
        super().__init__()
        self.image: Tensor
        self.text: Tensor
        self.register_buffer("image", torch.view_as_real(image))
        self.register_buffer("text", torch.view_as_real(text))

    def forward(self, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return torch.view_as_complex(self.image), torch.view_as_complex(self.text)


class _Call(DenoiserCall):
    def __init__(self, cells: tuple[int, int], tokens: int) -> None:
        super().__init__()
        self.cells, self.tokens = cells, tokens

    def network(self, transformer: Any) -> nn.Module:
        image, text = transformer.pos_embed([[(1, *self.cells)]], max_txt_seq_len=self.tokens)
        network: nn.Module = copy.copy(transformer)
        network._modules = dict(transformer._modules)
        network.pos_embed = _Rotations(image, text)
        return network

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, _pooled: Tensor, mask: Tensor
    ) -> dict[str, Any]:
        return {
            "hidden_states": latents.to(text.dtype),
            "timestep": timestep.to(text.dtype) / 1000,
            "encoder_hidden_states": text,
            "encoder_hidden_states_mask": mask > 0,
            "img_shapes": [[(1, *self.cells)]],
        }


class _Decoder(nn.Module):
    """Latents in cells, as the scheduler leaves them, to frames (B, 1, 3, H, W) in 0..1."""

    def __init__(self, vae: Any, rows: int, columns: int) -> None:
        super().__init__()
        self.vae, self.rows, self.columns = vae, rows, columns
        self.mean: Tensor
        self.scale: Tensor
        for name, value in zip(("mean", "scale"), normalisation(vae), strict=True):
            self.register_buffer(name, value)

    def forward(self, latents: Tensor) -> Tensor:
        unpacked = unpack(latents, self.rows, self.columns).unsqueeze(2)
        image: Tensor = self.vae.decode(unpacked / self.scale + self.mean, return_dict=False)[0]
        return (image * 0.5 + 0.5).clamp(0, 1).transpose(1, 2)


class QwenImageComponents:
    """Text encoder and tokenizer of one folder; the VAE is loaded when its source is asked for."""

    guidance: float | None = None

    def __init__(self, folder: Path, profile: ModelProfile, dtype: torch.dtype) -> None:
        self._folder = folder
        with loading(folder / "text_encoder"):
            pipe = QwenImagePipeline.from_pretrained(
                folder, transformer=None, vae=None, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        tokens, template = text_length(profile), pipe.prompt_template_encode_start_idx
        self._tokenizer = PipelineTokenizer(
            pipe.tokenizer, "tokenizer", tokens + template, "none", pipe.prompt_template_encode.format
        )
        language_model = pipe.text_encoder.model.language_model.eval().requires_grad_(False)
        self._states = _TokenStates(language_model, template)
        self._cells = QwenImageAdapter().cells(folder, profile)
        self.call: DenoiserCall = _Call(self._cells, tokens)

    def noise_shape(self, latents: Tensor) -> tuple[int, ...]:
        """Return (channels, rows, columns); a cell is two rows by two columns."""
        return tuple(unpack(latents, *self._cells).shape[1:])

    def save_tokenizers(self, folder: Path, prompts: Sequence[str]) -> tuple[TextRule, TextRule | None]:
        """Write the tokenizer; the model does not pool."""
        return self._tokenizer.save(folder, prompts), None

    def text_encoder_source(self, prompts: Sequence[str]) -> GraphSource:
        """Return the source of the language model, with `prompts` as example inputs."""
        return masked_text_source(self._states, self._tokenizer, prompts)

    def vae_decoder_source(self, latents: Tensor) -> GraphSource:
        """Return the source of the VAE decoder."""
        vae = load_vae(AutoencoderKLQwenImage, self._folder, torch.device("cpu")).eval().requires_grad_(False)
        return GraphSource("vae_decoder", _Decoder(vae, *self._cells), {"latents": latents})
