"""FluxPipeline: CLIP and T5 text, one guidance-distilled branch, latents packed in 2 × 2 cells, an image VAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.models.pipelines.latents import (
    draw,
    image_frames,
    load_vae,
    pack,
    tiled_where_needed,
    unpack,
)
from budc.compiler.models.pipelines.mixins import DistilledGuidance, ImageCells, PlainVelocity
from budc.compiler.models.pipelines.text import in_batches, text_pipeline
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample
from budc.runtimes.sampling.loading import loading


class FluxAdapter(DistilledGuidance, ImageCells, PlainVelocity):
    """The steps of FluxPipeline (FLUX.1), as in its `__call__`.

    A branch's condition: "text" (N, tokens, width), "pooled" (N, width), "positions" (N, cells, 3), and "guidance"
    (N,) where the transformer embeds it.
    """

    batch: int | None = None

    def encode(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Condition]:
        """Encode prompts with both encoders, padded to the profile's text length for T5."""
        pipe = text_pipeline(FluxPipeline, folder, "text_encoder_2", profile, device)

        def encode(batch: Sequence[Sample]) -> Sequence[Tensor]:
            text, pooled, _ = pipe.encode_prompt(
                [sample.prompt for sample in batch], max_sequence_length=profile.text_tokens, device=device
            )
            return text, pooled

        text, pooled = in_batches(encode, samples)
        condition = {
            "text": text,
            "pooled": pooled,
            "positions": self.positions(folder, profile).expand(len(samples), -1, -1),
        }
        if self.denoiser_config(folder)["guidance_embeds"]:
            condition["guidance"] = torch.full((len(samples),), profile.guidance)
        return {"cond": condition}

    def noise(self, folder: Path, profile: ModelProfile, seeds: Sequence[int]) -> Tensor:
        """Draw latents (N, cells, 4 · channels) in the profile's dtype, one CPU generator for each seed; as float32."""
        rows, columns = self.cells(folder, profile)
        with loading(folder / "transformer"):
            channels = int(self.denoiser_config(folder)["in_channels"]) // 4
        return pack(draw(seeds, (channels, 2 * rows, 2 * columns), getattr(torch, profile.dtype)))

    def inputs(self, condition: Condition, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Latents in the text's dtype, the timestep from 0 to 1, position ids of one sample."""
        assert isinstance(condition, Mapping)
        text = condition["text"]
        return {
            "hidden_states": latents.to(text.dtype),
            "timestep": timestep.expand(latents.shape[0]).to(text.dtype) / 1000,
            "guidance": condition.get("guidance"),
            "pooled_projections": condition["pooled"],
            "encoder_hidden_states": text,
            "txt_ids": text.new_zeros(text.shape[1], 3),
            "img_ids": condition["positions"][0],
        }

    def decoder(
        self, folder: Path, profile: ModelProfile, device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        """Load the VAE in float32."""
        vae = load_vae(AutoencoderKL, folder, device)
        rows, columns = self.cells(folder, profile)

        def decode(latents: Tensor) -> Tensor:
            unpacked = unpack(latents, rows, columns).to(device, vae.dtype)
            image: Tensor = vae.decode(
                unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False
            )[0]
            return image_frames(image)

        return tiled_where_needed(vae, decode)

    def positions(self, folder: Path, profile: ModelProfile) -> Tensor:
        """Return the position ids of one sample's cells, (1, cells, 3)."""
        axes = [torch.arange(count) for count in (1, *self.cells(folder, profile))]
        return torch.cartesian_prod(*axes).to(getattr(torch, profile.dtype))[None]

    def denoiser_config(self, folder: Path) -> Any:
        """Return the transformer's configuration."""
        with loading(folder / "transformer"):
            return FluxTransformer2DModel.load_config(folder / "transformer", local_files_only=True)
