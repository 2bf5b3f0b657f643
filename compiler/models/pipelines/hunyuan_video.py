"""HunyuanVideoPipeline: LLaMA and CLIP text, one guidance-distilled branch, a causal video VAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.models.pipelines.latents import (
    draw,
    load_vae,
    tiled_where_needed,
    video_frames,
    video_size,
)
from budc.compiler.models.pipelines.mixins import DistilledGuidance, PlainVelocity
from budc.compiler.models.pipelines.text import text_pipeline
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample
from budc.runtimes.sampling.loading import loading


class HunyuanVideoAdapter(DistilledGuidance, PlainVelocity):
    """The steps of HunyuanVideoPipeline, as in its `__call__`.

    A branch's condition: "text" (N, tokens, width), "mask" (N, tokens) with 0 for padding, "pooled"
    (N, width), "guidance" (N,) as the network embeds it; all in the profile's dtype.
    """

    batch: int | None = None

    def encode(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Condition]:
        """Encode prompts one at a time, as a deployment does: LLaMA with the pipeline's template, CLIP without one."""
        dtype = getattr(torch, profile.dtype)
        pipe = text_pipeline(HunyuanVideoPipeline, folder, "text_encoder", profile, device)
        encodings: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            for sample in samples:
                encoded = pipe.encode_prompt(
                    sample.prompt, max_sequence_length=profile.text_tokens, device=device
                )
                encodings.append(tuple(tensor.to("cpu", dtype) for tensor in encoded))
        text, pooled, mask = (torch.cat(tensors) for tensors in zip(*encodings, strict=True))
        guidance = torch.full((len(samples),), profile.guidance, dtype=dtype) * 1000
        return {"cond": {"text": text, "pooled": pooled, "mask": mask, "guidance": guidance}}

    def image_tokens(self, folder: Path, profile: ModelProfile) -> None:
        """Return None: the schedule is the same for every size."""

    def noise(self, folder: Path, profile: ModelProfile, seeds: Sequence[int]) -> Tensor:
        """Draw float32 latents (N, channels, frames, rows, columns) from one CPU generator for each seed."""
        with loading(folder / "vae"):
            config = AutoencoderKLHunyuanVideo.load_config(folder / "vae", local_files_only=True)
            spatial, temporal = config["spatial_compression_ratio"], config["temporal_compression_ratio"]
            shape = (int(config["latent_channels"]), *video_size(profile, spatial, temporal))
        return draw(seeds, shape)

    def inputs(self, condition: Condition, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Latents and one timestep for each sample, in the text's dtype."""
        assert isinstance(condition, Mapping)
        text = condition["text"]
        return {
            "hidden_states": latents.to(text.dtype),
            # The pipeline rounds it to the dtype of its latents: float32 at the first step, then the transformer's.
            # The first timestep, 1000, is the same in both.
            "timestep": timestep.expand(len(latents)).to(text.dtype),
            "encoder_hidden_states": text,
            "encoder_attention_mask": condition["mask"],
            "pooled_projections": condition["pooled"],
            "guidance": condition["guidance"],
        }

    def decoder(
        self, folder: Path, profile: ModelProfile, device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        """Load the VAE in float32."""
        vae = load_vae(AutoencoderKLHunyuanVideo, folder, device)

        def decode(latents: Tensor) -> Tensor:
            scaled = latents.to(device, vae.dtype) / vae.config.scaling_factor
            video: Tensor = vae.decode(scaled, return_dict=False)[0]
            return video_frames(video)

        return tiled_where_needed(vae, decode)
