"""Latents as pipelines draw them, pack them in 2 × 2 cells, and decode them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor

from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.device_memory import free_unused_memory, is_out_of_memory
from budc.runtimes.sampling.loading import loading


def draw(seeds: Sequence[int], shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw noise (N, *shape) from one CPU generator for each seed, in the pipeline's `dtype`; return it in float32."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise: Tensor = randn_tensor((len(seeds), *shape), generator=generators, dtype=dtype)
    return noise.float()


def video_size(profile: ModelProfile, spatial: int, temporal: int) -> tuple[int, int, int]:
    """Return (frames, rows, columns) of the latents of a causal video VAE with these compression ratios."""
    return (profile.frames - 1) // temporal + 1, profile.height // spatial, profile.width // spatial


def pack(latents: Tensor) -> Tensor:
    """Return latents (N, channels, 2 · rows, 2 · columns) as cells (N, rows · columns, 4 · channels)."""
    count, channels, height, width = latents.shape
    cells = latents.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, height * width // 4, channels * 4)


def unpack(cells: Tensor, rows: int, columns: int) -> Tensor:
    """Return cells (N, rows · columns, 4 · channels) as latents (N, channels, 2 · rows, 2 · columns)."""
    count, channels = cells.shape[0], cells.shape[-1] // 4
    latents = cells.view(count, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(count, channels, 2 * rows, 2 * columns)


def load_vae(vae_class: Any, folder: Path, device: torch.device) -> Any:
    """Load a pipeline folder's VAE in float32, frozen.

    Raises:
        WeightsMissing: it cannot be loaded.
    """
    with loading(folder / "vae"):
        vae = vae_class.from_pretrained(
            folder, subfolder="vae", dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    return vae.to(device).requires_grad_(False)


def tiled_where_needed(vae: Any, convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `convert`, which decodes or encodes with a VAE. From the first sample on that does not fit into memory,
    the VAE works in tiles.

    Tiles overlap and are blended, so the result differs slightly from that of the whole.
    """

    def convert_sample(sample: Tensor) -> Tensor:
        try:
            return convert(sample)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or vae.use_tiling:
                raise
        free_unused_memory()
        vae.enable_tiling()
        print("out of device memory: the VAE goes on in tiles", file=sys.stderr)
        return convert(sample)

    return convert_sample


def normalisation(vae: Any) -> tuple[Tensor, Tensor]:
    """Return (mean, 1 / deviation) of a VAE that lists them by channel, (1, channels, 1, 1, 1) each."""
    shape = (1, vae.config.z_dim, 1, 1, 1)
    mean, deviation = (
        torch.tensor(values).view(shape).to(vae.device, vae.dtype)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, 1.0 / deviation


def image_frames(images: Tensor) -> Tensor:
    """Return decoded images (N, 3, H, W) in -1..1 as frames (N, 3, 1, H, W) in 0..1, on the CPU."""
    frames: Tensor = VaeImageProcessor().postprocess(images, output_type="pt")
    return frames.float().cpu().unsqueeze(2)


def video_frames(videos: Tensor) -> Tensor:
    """Return decoded videos (N, 3, F, H, W) in -1..1 as frames in 0..1, on the CPU."""
    frames: Tensor = VideoProcessor().postprocess_video(videos, output_type="pt")
    return frames.float().cpu().transpose(1, 2)
