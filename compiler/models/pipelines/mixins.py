"""What several adapters have in common: outputs that are velocities, guidance as an input, images in 2 × 2 cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from torch import Tensor

from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.loading import loading


class PlainVelocity:
    """A network whose output is the velocity."""

    def velocity(self, output: Any) -> Tensor:
        """Return the output as it is."""
        assert isinstance(output, Tensor)
        return output


class DistilledGuidance:
    """One branch, whose network takes the guidance scale as an input."""

    linear = True

    def guide(self, velocities: Mapping[str, Tensor], guidance: float) -> Tensor:
        """Return the only branch's."""
        return velocities["cond"]


class ImageCells:
    """Images whose latents the network takes in 2 × 2 cells; their number shifts the schedule."""

    def cells(self, folder: Path, profile: ModelProfile) -> tuple[int, int]:
        """Return rows and columns of cells."""
        with loading(folder / "vae"):
            side = 2 * self.compression(folder / "vae")
        return profile.height // side, profile.width // side

    def compression(self, vae: Path) -> int:
        """Return how many pixels are one latent, in either direction; by default of an AutoencoderKL."""
        config = AutoencoderKL.load_config(vae, local_files_only=True)
        return int(2 ** (len(config["block_out_channels"]) - 1))

    def image_tokens(self, folder: Path, profile: ModelProfile) -> int:
        """Count the cells."""
        rows, columns = self.cells(folder, profile)
        return rows * columns
