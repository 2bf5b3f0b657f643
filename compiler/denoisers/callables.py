"""A pair of functions, as a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.denoisers.denoiser import WeightedGuidance


class CallableDenoiser(WeightedGuidance):
    """A pair of functions: `compute(latents, timestep, condition)` returns velocity and residual, and `reuse(residual,
    latents, timestep, condition)` the velocity. `timestep` is (n,); `weights` is branch -> guidance weight.
    """

    def __init__(
        self,
        compute: Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]],
        reuse: Callable[[Tensor, Tensor, Tensor, Any], Tensor],
        weights: Mapping[str, float],
        device: torch.device,
    ) -> None:
        self._compute, self._reuse = compute, reuse
        self.weights = weights
        self.device = device

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return velocity and residual."""
        return self._compute(latents, timestep.expand(len(latents)), condition)

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the velocity from a residual."""
        return self._reuse(residual, latents, timestep.expand(len(latents)), condition)
