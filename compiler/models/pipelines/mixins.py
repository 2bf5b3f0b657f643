"""Mixins of adapters: outputs that are velocities, guidance as an input, images in 2 × 2 cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor

from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.loading import loading


class PlainVelocity:
    """For a network whose output is the velocity."""

    def velocity(self, output: Any) -> Tensor:
        """Return the output unchanged."""
        assert isinstance(output, Tensor)
        return output


class DistilledGuidance:
    """For a network that takes the guidance scale as an input and has one branch."""

    linear = True

    def guide(self, velocities: Mapping[str, Tensor], guidance: float) -> Tensor:
        """Return the velocity of the only branch."""
        return velocities["cond"]


class ImageCells:
    """For images whose latents the network takes in 2 × 2 cells; their number shifts the schedule."""

    def cells(self, folder: Path, profile: ModelProfile) -> tuple[int, int]:
        """Return rows and columns of cells."""
        with loading(folder / "vae"):
            side = 2 * self.compression(folder / "vae")
        return profile.height // side, profile.width // side

    def compression(self, vae: Path) -> int:
        """Return how many pixels one latent covers in each direction, here with an AutoencoderKL."""
        config = AutoencoderKL.load_config(vae, local_files_only=True)
        return int(2 ** (len(config["block_out_channels"]) - 1))

    def image_tokens(self, folder: Path, profile: ModelProfile) -> int:
        """Count the cells."""
        rows, columns = self.cells(folder, profile)
        return rows * columns
