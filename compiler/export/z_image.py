"""ZImagePipeline's text encoder, VAE decoder and tokenizer, as they are exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ZImagePipeline
from torch import Tensor, nn

from budc.compiler.export.denoiser_call import DenoiserCall
from budc.compiler.export.masked_text import masked_text_source
from budc.compiler.export.sources import GraphSource
from budc.compiler.export.tokenizers import PipelineTokenizer
from budc.compiler.export.z_image_network import ZImageNetwork
from budc.compiler.models.pipelines.latents import load_vae
from budc.compiler.models.pipelines.z_image import ZImageAdapter
from budc.policies.profile import ModelProfile
from budc.runtimes.exported.manifest import TextRule
from budc.runtimes.sampling.loading import loading

_TEXT_TOKENS = 512
"""Length to which the pipeline truncates text by default."""


class _TokenStates(nn.Module):
    """What the language model's last layer is given (N, tokens, width)."""

    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, input_ids: Tensor) -> Tensor:
        states: Tensor = self.language_model(input_ids=input_ids, output_hidden_states=True).hidden_states[-2]
        return states


class _Call(DenoiserCall):
    family_class = "ZImageTransformer2DModel"

    def __init__(self, cells: tuple[int, int], tokens: int) -> None:
        super().__init__()
        self.cells, self.tokens = cells, tokens

    def network(self, transformer: nn.Module) -> nn.Module:
        return ZImageNetwork(transformer, self.cells, self.tokens)

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, _pooled: Tensor, mask: Tensor
    ) -> dict[str, Any]:
        return {
            "latents": latents.to(text.dtype),
            "time": (1000 - timestep) / 1000,
            "text": text,
            "tokens": mask.sum(1),
        }

    def velocity(self, output: Tensor) -> Tensor:
        return -output


class _Decoder(nn.Module):
    """Latents, as the scheduler leaves them, to frames (B, 1, 3, H, W) in 0..1."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        scaled = latents / config.scaling_factor + config.shift_factor
        image: Tensor = self.vae.decode(scaled, return_dict=False)[0]
        return (image * 0.5 + 0.5).clamp(0, 1).unsqueeze(1)


class ZImageComponents:
    """Text encoder and tokenizer of one folder; the VAE is loaded when its source is asked for."""

    guidance: float | None = None

    def __init__(self, folder: Path, profile: ModelProfile, dtype: torch.dtype) -> None:
        self._folder = folder
        with loading(folder / "text_encoder"):
            pipe = ZImagePipeline.from_pretrained(
                folder, transformer=None, vae=None, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        tokens = profile.text_tokens or _TEXT_TOKENS
        self._tokenizer = PipelineTokenizer(
            pipe.tokenizer, "tokenizer", tokens, "none", _chat(pipe.tokenizer)
        )
        self._states = _TokenStates(pipe.text_encoder.eval().requires_grad_(False))
        self.call: DenoiserCall = _Call(ZImageAdapter().cells(folder, profile), tokens)

    def noise_shape(self, latents: Tensor) -> tuple[int, ...]:
        """Return (channels, rows, columns)."""
        return tuple(latents.shape[1:])

    def save_tokenizers(self, folder: Path, prompts: Sequence[str]) -> tuple[TextRule, TextRule | None]:
        """Write the tokenizer; the model does not pool."""
        return self._tokenizer.save(folder, prompts), None

    def text_encoder_source(self, prompts: Sequence[str]) -> GraphSource:
        """Return the source of the language model, with `prompts` as example inputs."""
        return masked_text_source(self._states, self._tokenizer, prompts)

    def vae_decoder_source(self, latents: Tensor) -> GraphSource:
        """Return the source of the VAE decoder."""
        vae = load_vae(AutoencoderKL, self._folder, torch.device("cpu")).eval().requires_grad_(False)
        return GraphSource("vae_decoder", _Decoder(vae), {"latents": latents})


def _chat(tokenizer: Any) -> Callable[[str], str]:
    """Return the template of a prompt: the user's message in a chat, and the beginning of the answer."""

    def template(prompt: str) -> str:
        text: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )
        return text

    return template
