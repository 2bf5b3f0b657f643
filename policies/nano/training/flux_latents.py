"""Latents of the training pictures, as FluxPipeline's denoiser sees them: scaled, and packed in 2 x 2 cells."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from budc.policies.nano.training import flux_vae
from budc.policies.nano.training.wan_latents import SHARD_SIZE, write_shard

SHARDS = 24


def pack(latents: Tensor) -> Tensor:
    """Pack latents (B, C, 2R, 2K) into cells (B, R K, 4C), row by row."""
    count, channels, rows, columns = latents.shape
    cells = latents.view(count, channels, rows // 2, 2, columns // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, rows * columns // 4, 4 * channels)


def positions(rows: int, columns: int) -> Tensor:
    """Return the position ids of the cells, (rows · columns, 3): zero, row, column."""
    return torch.cartesian_prod(torch.zeros(1), torch.arange(rows).float(), torch.arange(columns).float())


@torch.no_grad()
def encode_shard(vae: AutoencoderKL, folder: Path, index: int, seed: int) -> None:
    """Draw and encode one shard, unless its file exists."""
    if (folder / f"{index:03d}.pt").exists():
        return
    frames, pictures = flux_vae.draw("train", (seed << 16) + index, SHARD_SIZE)
    means = []
    for batch in frames.split(64):
        with torch.autocast(vae.device.type, dtype=torch.bfloat16):
            means.append(vae.encode(batch.to(vae.device)).latent_dist.mean.float().cpu())
    scaled = (torch.cat(means) - vae.config.shift_factor) * vae.config.scaling_factor
    write_shard(folder, index, pack(scaled), pictures)
