"""WanPipeline's text encoder, VAE decoder and tokenizer, as they are exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from torch import Tensor, nn

from budc.compiler.export.denoiser_call import DenoiserCall
from budc.compiler.export.sources import UNUSED_INPUT, GraphSource
from budc.compiler.export.tokenizers import PipelineTokenizer
from budc.compiler.models.pipelines.latents import load_vae, normalisation
from budc.compiler.models.pipelines.wan import WanAdapter
from budc.policies.profile import ModelProfile
from budc.runtimes.exported.manifest import TextRule
from budc.runtimes.sampling.loading import loading


class _TextEncoder(nn.Module):
    """Token states, zero after the last token of each prompt."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, _pooled_input_ids: Tensor) -> Tensor:
        states: Tensor = self.encoder(input_ids, attention_mask).last_hidden_state
        lengths = attention_mask.gt(0).sum(dim=1, keepdim=True)
        inside = torch.arange(states.shape[1], device=states.device)[None] < lengths
        return torch.where(inside[..., None], states, torch.zeros((), dtype=states.dtype))


class _Call(DenoiserCall):
    """The adapter's call, with the token states as its condition."""

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, _pooled: Tensor, _mask: Tensor
    ) -> dict[str, Any]:
        return WanAdapter().inputs(text, latents, timestep)


class _Decoder(nn.Module):
    """Latents, as the scheduler leaves them, to frames (B, F, 3, H, W) in 0..1."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.mean: Tensor
        self.scale: Tensor
        for name, value in zip(("mean", "scale"), normalisation(vae), strict=True):
            self.register_buffer(name, value)

    def forward(self, latents: Tensor) -> Tensor:
        video: Tensor = self.vae.decode(latents / self.scale + self.mean, return_dict=False)[0]
        return (video * 0.5 + 0.5).clamp(0, 1).transpose(1, 2)


class WanComponents:
    """Text encoder and tokenizer of one folder; the VAE is loaded when its source is asked for."""

    guidance: float | None = None

    def __init__(self, folder: Path, profile: ModelProfile, dtype: torch.dtype) -> None:
        self._folder = folder
        with loading(folder / "text_encoder"):
            pipe = WanPipeline.from_pretrained(
                folder, transformer=None, vae=None, dtype=dtype, use_safetensors=True, local_files_only=True
            )
        assert profile.text_tokens is not None
        self.tokenizer = PipelineTokenizer(pipe.tokenizer, "tokenizer", profile.text_tokens, "wan")
        self._encoder = pipe.text_encoder.eval().requires_grad_(False)
        self.call: DenoiserCall = _Call()

    def noise_shape(self, latents: Tensor) -> tuple[int, ...]:
        """Return (channels, frames, rows, columns)."""
        return tuple(latents.shape[1:])

    def save_tokenizers(self, folder: Path, prompts: Sequence[str]) -> tuple[TextRule, TextRule | None]:
        """Write the tokenizer; the model does not pool."""
        return self.tokenizer.save(folder, prompts), None

    def text_encoder_source(self, prompts: Sequence[str]) -> GraphSource:
        """Return the source of the text encoder, with `prompts` as example inputs."""
        ids, mask = self.tokenizer.ids(prompts)
        inputs = {"input_ids": ids, "attention_mask": mask, "pooled_input_ids": UNUSED_INPUT}
        return GraphSource("text_encoder", _TextEncoder(self._encoder), inputs, ("encoder_hidden_states",))

    def vae_decoder_source(self, latents: Tensor) -> GraphSource:
        """Return the source of the VAE decoder."""
        vae = load_vae(AutoencoderKLWan, self._folder, torch.device("cpu"))
        return GraphSource("vae_decoder", _Decoder(vae.eval().requires_grad_(False)), {"latents": latents})
