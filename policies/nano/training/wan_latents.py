"""Encode the training clips once, in shards: normalised latents and their scenes. Shards that exist are kept."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from budc.policies.nano.data import clips
from budc.policies.nano.data.captions import captions

S = TypeVar("S")

SHARDS = 40
SHARD_SIZE = 1024


def normalise(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Shift and scale latents per channel to mean 0 and deviation 1, as the pipeline expects them."""
    shape = (1, -1, 1, 1, 1)
    mean = torch.tensor(vae.config.latents_mean).view(shape)
    return (latents - mean) / torch.tensor(vae.config.latents_std).view(shape)


@torch.no_grad()
def encode_shard(vae: AutoencoderKLWan, folder: Path, index: int, seed: int) -> None:
    """Draw and encode one shard, unless its file exists."""
    if (folder / f"{index:03d}.pt").exists():
        return
    generator = torch.Generator().manual_seed((seed << 32) + index)
    scenes = [c.scene for c in itertools.islice(captions("train", (seed << 16) + index), SHARD_SIZE)]
    means = []
    for first in range(0, SHARD_SIZE, 32):
        frames = clips.batch(scenes[first : first + 32], generator).to(vae.device)
        with torch.autocast(vae.device.type, dtype=torch.bfloat16):
            means.append(vae.encode(frames).latent_dist.mean.float().cpu())
    write_shard(folder, index, normalise(vae, torch.cat(means)), scenes)


def write_shard(folder: Path, index: int, latents: Tensor, scenes: Sequence[msgspec.Struct]) -> None:
    """Write one shard atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{index:03d}.pt"
    rows = [msgspec.structs.astuple(scene) for scene in scenes]
    temporary = target.with_suffix(f".{os.getpid()}.part")
    torch.save({"latents": latents.half(), "scenes": rows}, temporary)
    os.replace(temporary, target)


def load_shards(folder: Path, kind: Callable[..., S], count: int = SHARDS) -> tuple[Tensor, list[S]]:
    """Read all shards: normalised latents (N, ...) and the scene of each, of class `kind`."""
    shards = [torch.load(folder / f"{index:03d}.pt", weights_only=True) for index in range(count)]
    scenes = [kind(*row) for shard in shards for row in shard["scenes"]]
    return torch.cat([shard["latents"] for shard in shards]), scenes
