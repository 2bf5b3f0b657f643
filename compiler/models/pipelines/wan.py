"""WanPipeline: UMT5 text, two guidance branches in separate forwards, a causal video VAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.models.pipelines.latents import (
    draw,
    load_vae,
    normalisation,
    tiled_where_needed,
    video_frames,
    video_size,
)
from budc.compiler.models.pipelines.mixins import PlainVelocity
from budc.compiler.models.pipelines.text import in_batches, text_pipeline
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample
from budc.runtimes.sampling.loading import loading


class WanAdapter(PlainVelocity):
    """The steps of WanPipeline, as in its `__call__`."""

    batch: int | None = None
    linear = True
    pipeline_class: Any = WanPipeline
    image_parts: Sequence[str] = ()
    """Components of the pipeline that encode images."""

    def encode(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Condition]:
        """Encode prompts and negative prompts."""
        cond, uncond = self.texts(folder, profile, samples, device)
        conditions: dict[str, Condition] = {"cond": cond, "uncond": uncond}
        return {branch: conditions[branch] for branch in profile.branches}

    def texts(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> list[Tensor]:
        """Return prompts and negative prompts (N, tokens, width), padded with zeros to the profile's text length."""
        pipe = text_pipeline(
            self.pipeline_class, folder, "text_encoder", profile, device, without=self.image_parts
        )

        def encode(batch: Sequence[Sample]) -> Sequence[Tensor]:
            cond, uncond = pipe.encode_prompt(
                [sample.prompt for sample in batch],
                negative_prompt=[sample.negative for sample in batch],
                max_sequence_length=profile.text_tokens,
                device=device,
            )
            return cond, uncond

        return in_batches(encode, samples)

    def image_tokens(self, folder: Path, profile: ModelProfile) -> None:
        """Return None: the schedule is the same for every size."""

    def noise(self, folder: Path, profile: ModelProfile, seeds: Sequence[int]) -> Tensor:
        """Draw float32 latents (N, z, frames, rows, columns) from one CPU generator for each seed."""
        with loading(folder / "vae"):
            config = AutoencoderKLWan.load_config(folder / "vae", local_files_only=True)
            spatial, temporal = config.get("scale_factor_spatial", 8), config.get("scale_factor_temporal", 4)
            shape = (int(config["z_dim"]), *video_size(profile, spatial, temporal))
        return draw(seeds, shape)

    def inputs(self, condition: Condition, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Latents in the text's dtype, one timestep for each sample."""
        assert isinstance(condition, Tensor)
        return {
            "hidden_states": latents.to(condition.dtype),
            "timestep": timestep.expand(latents.shape[0]),
            "encoder_hidden_states": condition,
        }

    def guide(self, velocities: Mapping[str, Tensor], guidance: float) -> Tensor:
        """Classifier-free guidance, uncond + guidance * (cond - uncond); without the second branch there is none."""
        cond = velocities["cond"]
        if "uncond" not in velocities:
            return cond
        return velocities["uncond"] + guidance * (cond - velocities["uncond"])

    def decoder(
        self, folder: Path, profile: ModelProfile, device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        """Load the VAE in float32, as the model's documentation recommends."""
        vae = load_vae(AutoencoderKLWan, folder, device)
        mean, scale = normalisation(vae)

        def decode(latents: Tensor) -> Tensor:
            video: Tensor = vae.decode(latents.to(device, vae.dtype) / scale + mean, return_dict=False)[0]
            return video_frames(video)

        return tiled_where_needed(vae, decode)
