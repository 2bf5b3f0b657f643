"""Denoiser: a network in its two modes, as rollouts call it; nothing of pipelines, checkpoints or files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition


class Denoiser(Protocol):
    """What a policy is searched for.

    `compute` returns the velocity (n, ...) of latents (n, ...), and the trunk residual of any shape (n, ...);
    `reuse` the velocity from a residual in the blocks' place. `timestep` is a scalar tensor; `condition` is one
    branch's: a tensor or several by name, of first dimension n.
    """

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""

    @property
    def linear(self) -> bool:
        """Whether `guide` is linear in the velocities."""

    @property
    def device(self) -> torch.device:
        """Where the network lies."""

    def first_steps(self, timesteps: Sequence[float] | Tensor) -> tuple[int, ...]:
        """Return the steps of a schedule at which another network takes over; none where there is one network."""

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network."""

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run what comes before and after the trunk."""

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return the guided velocity (n, ...) of every branch's, differentiably."""

    def checkpoint_blocks(self) -> bool:
        """Keep only what lies between blocks where gradients are wanted; return whether that makes room anew."""


class WeightedSum:
    """One network with the usual guidance: `weights`, branch -> its weight in the guided velocity."""

    weights: Mapping[str, float]
    linear: bool = True

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""
        return tuple(self.weights)

    def first_steps(self, timesteps: Sequence[float] | Tensor) -> tuple[int, ...]:
        """Return none."""
        return ()

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return Σ_b weights[b] · velocities[b]."""
        return guide(self.weights, velocities)

    def checkpoint_blocks(self) -> bool:
        """Make no room."""
        return False


def guide(weights: Mapping[str, float], velocities: Mapping[str, Tensor]) -> Tensor:
    """Return the guided velocity: the weighted sum of the branches' velocities (n, ...)."""
    names = iter(velocities)
    first = next(names)
    total = weights[first] * velocities[first]
    for name in names:
        total = total + weights[name] * velocities[name]
    return total
