"""What the compiler must know of a pipeline class: how it encodes prompts, calls its denoiser and decodes.

One module for each class; `adapter_for` imports it. Components are used one at a time, so that text encoder and VAE
are not in memory while the denoiser runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Protocol

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.models.supported import adapter_name
from budc.policies.profile import ModelProfile
from budc.policies.samples import Sample


class PipelineAdapter(Protocol):
    """The steps of one pipeline class, to be called one by one."""

    batch: int | None
    """The most samples that one forward should take; None: as many as fit.

    1 where a batch is padded to its longest prompt, because a sample would then depend on the others in its batch.
    """

    linear: bool
    """Whether `guide` is a weighted sum of the branches with constant weights."""

    def encode(
        self, folder: Path, profile: ModelProfile, samples: Sequence[Sample], device: torch.device
    ) -> dict[str, Condition]:
        """Encode the prompts of N samples: branch name -> its condition, on the CPU."""

    def image_tokens(self, folder: Path, profile: ModelProfile) -> int | None:
        """Count the tokens by which the pipeline shifts its schedule; None where it does not."""

    def noise(self, folder: Path, profile: ModelProfile, seeds: Sequence[int]) -> Tensor:
        """Draw the starting latents that the pipeline would draw from these seeds, one sample for each."""

    def inputs(self, condition: Condition, latents: Tensor, timestep: Tensor) -> dict[str, Any]:
        """Return what one forward of the denoiser is called with, `return_dict` left out."""

    def velocity(self, output: Any) -> Tensor:
        """Return the velocity (n, ...), of the sign that the scheduler takes, from what a forward returned."""

    def guide(self, velocities: Mapping[str, Tensor], guidance: float) -> Tensor:
        """Combine the branches' velocities as the pipeline does."""

    def decoder(
        self, folder: Path, profile: ModelProfile, device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        """Load the VAE and return a function from final latents to frames (N, 3, F, H, W) in 0..1, on the CPU."""


def adapter_for(pipeline_class: str) -> PipelineAdapter:
    """Return the adapter of a pipeline class.

    Raises:
        UnsupportedModel: the compiler does not know the class.
    """
    adapter: PipelineAdapter = resolve_name(adapter_name(pipeline_class))()
    return adapter
