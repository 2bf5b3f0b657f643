"""VAE memory: what a VAE takes while it decodes a sample, or encodes the clip that one begins with an image."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL

from budc.compiler.planning.profiler import profile_run
from budc.policies.profile import ModelProfile

FLOAT = 4
"""Bytes of a number: VAEs compute in float32."""


class VaeMemory:
    """The memory of a VAE on the meta device, for samples of a profile's size.

    Each method returns the bytes with a whole sample, 0 where that is more than can be counted, and with a tile at a
    time.
    """

    def __init__(self, vae: Any, profile: ModelProfile) -> None:
        self.vae = vae
        levels = len(vae.config.get("block_out_channels", ()))
        self.spatial = getattr(vae, "spatial_compression_ratio", None) or 2 ** (levels - 1)
        temporal = getattr(vae, "temporal_compression_ratio", 1)
        self.frames = (profile.frames - 1) // temporal + 1
        self.rows, self.columns = profile.height // self.spatial, profile.width // self.spatial
        self.tile = getattr(vae, "tile_latent_min_size", None) or vae.tile_sample_min_height // self.spatial
        # Those that decode all frames at once limit a tile in time too.
        self.tile_frames = min(self.frames, getattr(vae, "tile_sample_min_num_frames", 10**6) // temporal + 1)
        self.clip_shape = (3, profile.frames, profile.height, profile.width)
        weights = vae.state_dict().values()
        self.weights = sum(tensor.numel() * tensor.element_size() for tensor in weights)
        self.clip = torch.Size(self.clip_shape).numel() * FLOAT

    def decoding(self) -> tuple[int, int]:
        """Of latents, to an image or a clip."""

        def taken(frames: int, rows: int, columns: int) -> int:
            # An image VAE knows no frames.
            time = () if isinstance(self.vae, AutoencoderKL) else (frames,)
            channels = self.vae.config.get("latent_channels") or self.vae.config.z_dim
            latents = torch.empty(1, channels, *time, rows, columns, device="meta")
            return profile_run(lambda: self.vae.decode(latents, return_dict=False)).peak_bytes

        # A network that attends to all frames at once has a mask of every pair of their cells.
        whole = 0 if self.tile_frames < self.frames else taken(self.frames, self.rows, self.columns)
        tile = taken(self.tile_frames, min(self.tile, self.rows), min(self.tile, self.columns))
        return self._of(whole, self.clip + tile)

    def encoding(self) -> tuple[int, int]:
        """Of a clip of the sample's length, which begins with an image."""
        _, frames, height, width = self.clip_shape
        side = self.tile * self.spatial

        def taken(height: int, width: int) -> int:
            pixels = torch.empty(1, 3, frames, height, width, device="meta")
            return profile_run(lambda: self.vae.encode(pixels, return_dict=False)).peak_bytes

        whole, tile = taken(height, width), taken(min(side, height), min(side, width))
        return self._of(self.clip + whole, self.clip + tile)

    def _of(self, whole: int, tiled: int) -> tuple[int, int]:
        return (
            (self.weights + whole, self.weights + min(tiled, whole)) if whole else (0, self.weights + tiled)
        )
