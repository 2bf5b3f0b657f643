"""FluxPipeline's text encoders, VAE decoder and tokenizers, as they are exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline
from torch import Tensor, nn

from budc.compiler.export.denoiser_call import DenoiserCall
from budc.compiler.export.sources import GraphSource
from budc.compiler.export.tokenizers import PipelineTokenizer
from budc.compiler.models.pipelines.flux import FluxAdapter
from budc.compiler.models.pipelines.latents import load_vae, unpack
from budc.policies.profile import ModelProfile
from budc.runtimes.exported.manifest import TextRule
from budc.runtimes.sampling.loading import loading


class _TextEncoders(nn.Module):
    """T5's token states, padding included, and CLIP's pooled state."""

    def __init__(self, t5: nn.Module, clip: nn.Module) -> None:
        super().__init__()
        self.t5, self.clip = t5, clip

    def forward(
        self, input_ids: Tensor, _attention_mask: Tensor, pooled_input_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.t5(input_ids).last_hidden_state, self.clip(pooled_input_ids).pooler_output


class _Call(DenoiserCall):
    """The adapter's call, with embeddings of the prompt, and constant position ids and guidance."""

    def __init__(self, positions: Tensor, guidance: Tensor | None) -> None:
        super().__init__()
        self.positions: Tensor
        self.guidance: Tensor | None
        self.register_buffer("positions", positions)
        self.register_buffer("guidance", guidance)

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor, _mask: Tensor
    ) -> dict[str, Any]:
        condition = {"text": text, "pooled": pooled, "positions": self.positions}
        if self.guidance is not None:
            condition["guidance"] = self.guidance.expand(text.shape[0])
        return FluxAdapter().inputs(condition, latents, timestep)


class _Decoder(nn.Module):
    """Latents in cells, as the scheduler leaves them, to frames (B, 1, 3, H, W) in 0..1."""

    def __init__(self, vae: Any, rows: int, columns: int) -> None:
        super().__init__()
        self.vae, self.rows, self.columns = vae, rows, columns

    def forward(self, latents: Tensor) -> Tensor:
        config = self.vae.config
        unpacked = unpack(latents, self.rows, self.columns) / config.scaling_factor + config.shift_factor
        image: Tensor = self.vae.decode(unpacked, return_dict=False)[0]
        return (image * 0.5 + 0.5).clamp(0, 1).unsqueeze(1)


class FluxComponents:
    """Text encoders and tokenizers of one folder; the VAE is loaded when its source is asked for."""

    def __init__(self, folder: Path, profile: ModelProfile, dtype: torch.dtype) -> None:
        self._folder = folder
        with loading(folder / "text_encoder_2"):
            pipe = FluxPipeline.from_pretrained(
                folder, transformer=None, vae=None, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        assert profile.text_tokens is not None
        self._t5_tokenizer = PipelineTokenizer(pipe.tokenizer_2, "tokenizer_2", profile.text_tokens, "none")
        self._clip_tokenizer = PipelineTokenizer(
            pipe.tokenizer, "tokenizer", pipe.tokenizer_max_length, "none"
        )
        self._encoders = _TextEncoders(pipe.text_encoder_2, pipe.text_encoder).eval().requires_grad_(False)
        adapter = FluxAdapter()
        self._cells = adapter.cells(folder, profile)
        embeds = adapter.denoiser_config(folder)["guidance_embeds"]
        self.guidance: float | None = profile.guidance if embeds else None
        positions = adapter.positions(folder, profile).to(dtype)
        self.call: DenoiserCall = _Call(
            positions, torch.tensor([self.guidance]) if self.guidance is not None else None
        )

    def noise_shape(self, latents: Tensor) -> tuple[int, ...]:
        """Return (channels, rows, columns); a cell is two rows by two columns."""
        return tuple(unpack(latents, *self._cells).shape[1:])

    def save_tokenizers(self, folder: Path, prompts: Sequence[str]) -> tuple[TextRule, TextRule | None]:
        """Write T5's tokenizer and CLIP's."""
        return self._t5_tokenizer.save(folder, prompts), self._clip_tokenizer.save(folder, prompts)

    def text_encoder_source(self, prompts: Sequence[str]) -> GraphSource:
        """Return the source of both text encoders, with `prompts` as example inputs."""
        ids, mask = self._t5_tokenizer.ids(prompts)
        pooled, _ = self._clip_tokenizer.ids(prompts)
        return GraphSource(
            "text_encoder",
            self._encoders,
            {"input_ids": ids, "attention_mask": mask, "pooled_input_ids": pooled},
            ("encoder_hidden_states", "pooled_projections"),
        )

    def vae_decoder_source(self, latents: Tensor) -> GraphSource:
        """Return the source of the VAE decoder."""
        vae = load_vae(AutoencoderKL, self._folder, torch.device("cpu")).eval().requires_grad_(False)
        return GraphSource("vae_decoder", _Decoder(vae, *self._cells), {"latents": latents})
