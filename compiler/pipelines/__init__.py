"""What the compiler must know of a pipeline class: how it encodes prompts, calls its denoiser and decodes.

One module a class; `adapter_for` finds it. Rollouts need the parts one at a time, so that text encoder and
VAE are not in memory while the denoiser runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from budc.policies.profile import ModelProfile
from budc.schema.errors import UnsupportedModel


class Adapter(Protocol):
    """One pipeline class, taken apart."""

    def encode(
        self, folder: Path, profile: ModelProfile, prompts: Sequence[str], device: torch.device
    ) -> dict[str, Tensor]:
        """Encode prompts: branch name -> embeddings (N, tokens, width), on the CPU."""

    def noise(self, folder: Path, profile: ModelProfile, seeds: Sequence[int]) -> Tensor:
        """Draw the starting latents that the pipeline would draw from these seeds, one sample a seed."""

    def inputs(self, embeddings: Tensor, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Return what one forward of the denoiser is called with, `return_dict` left out."""

    def guide(self, velocities: Mapping[str, Tensor], guidance: float) -> Tensor:
        """Combine the branches' velocities as the pipeline does."""

    def decoder(self, folder: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Load the VAE and return a function from final latents to frames (N, 3, F, H, W) in 0..1, on the CPU."""


def adapter_for(pipeline_class: str) -> Adapter:
    """Return the adapter of a pipeline class.

    Raises:
        UnsupportedModel: the compiler does not know the class.
    """
    from budc.compiler.pipelines.wan import WanAdapter

    adapters: dict[str, Adapter] = {"WanPipeline": WanAdapter()}
    if pipeline_class not in adapters:
        raise UnsupportedModel(
            f"cannot compile for {pipeline_class}, only for {', '.join(sorted(adapters))}",
        )
    return adapters[pipeline_class]
