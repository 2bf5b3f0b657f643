"""Denoiser: a network in its two modes, as rollouts call it; nothing of pipelines, checkpoints or files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.model import Model
from budc.runtimes.trunk import Trunk


class Denoiser(Protocol):
    """What a policy is searched for.

    `compute` returns the velocity (n, ...) of latents (n, ...), and the trunk residual of any shape (n, ...);
    `reuse` the velocity from a residual in the blocks' place. `timestep` is a scalar tensor; `condition` is one
    branch's embedding, or whatever of first dimension n the network is conditioned on.
    """

    @property
    def weights(self) -> Mapping[str, float]:
        """Guidance branch -> its weight in the guided velocity, which is their weighted sum."""

    @property
    def device(self) -> torch.device:
        """Where the network lies."""

    def compute(self, latents: Tensor, timestep: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Run the whole network."""

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Run what comes before and after the trunk."""


class ModelDenoiser:
    """A loaded model's denoiser."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._trunk = Trunk(model.denoiser)
        branches, guidance = model.profile.branches, model.profile.guidance
        self.weights: Mapping[str, float] = {
            name: float(
                model.adapter.guide({b: torch.tensor(float(b == name)).double() for b in branches}, guidance)
            )
            for name in branches
        }
        self.device = model.device

    def compute(self, latents: Tensor, timestep: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Run the whole network."""
        return self._trunk.compute(**self._model.adapter.inputs(condition, latents, timestep))

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Run embedding, final norm and projection."""
        return self._trunk.reuse(residual, **self._model.adapter.inputs(condition, latents, timestep))


def guide(weights: Mapping[str, float], velocities: Mapping[str, Tensor]) -> Tensor:
    """Return the guided velocity: the weighted sum of the branches' velocities (n, ...)."""
    names = iter(velocities)
    first = next(names)
    total = weights[first] * velocities[first]
    for name in names:
        total = total + weights[name] * velocities[name]
    return total
