"""Encode the training clips once: normalised latents and their scenes, in shards that resume."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import msgspec
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from budc.policies.nano import clips
from budc.policies.nano.captions import Scene, captions

SHARDS = 40
SHARD_SIZE = 1024


def normalise(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Shift and scale latents per channel to mean 0 and deviation 1, as the pipeline expects them."""
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape)
    return (latents - mean) / torch.tensor(vae.config.latents_std).view(shape)


@torch.no_grad()
def encode_shard(vae: AutoencoderKLWan, folder: Path, index: int, seed: int) -> None:
    """Draw and encode one shard, unless it stands already."""
    target = folder / f"{index:03d}.pt"
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed((seed << 32) + index)
    scenes = [c.scene for c in itertools.islice(captions("train", (seed << 16) + index), SHARD_SIZE)]
    parts = []
    for first in range(0, SHARD_SIZE, 32):
        frames = clips.batch(scenes[first : first + 32], generator).to(vae.device)
        with torch.autocast(vae.device.type, dtype=torch.bfloat16):
            parts.append(vae.encode(frames).latent_dist.mean.float().cpu())
    rows = [msgspec.structs.astuple(scene) for scene in scenes]
    temporary = target.with_suffix(f".{os.getpid()}.part")
    torch.save({"latents": normalise(vae, torch.cat(parts)).half(), "scenes": rows}, temporary)
    os.replace(temporary, target)


def load_shards(folder: Path) -> tuple[Tensor, list[Scene]]:
    """Read all shards: latents (N, 16, 3, 8, 8) and the scene of each."""
    shards = [torch.load(folder / f"{index:03d}.pt", weights_only=True) for index in range(SHARDS)]
    scenes = [Scene(*row) for shard in shards for row in shard["scenes"]]
    return torch.cat([shard["latents"] for shard in shards]), scenes
