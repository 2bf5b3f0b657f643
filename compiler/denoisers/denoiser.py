"""Denoiser: a network in its two modes, compute and reuse, as rollouts call it. Pipelines and files are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition


class Denoiser(Protocol):
    """What a policy is searched for.

    Latents and velocities are (n, ...), the trunk residual is (n, ...) of any other shape. `timestep` is a scalar
    tensor; `condition` is that of one branch.
    """

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""

    @property
    def linear(self) -> bool:
        """Whether `guide` is linear in the velocities."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""

    def first_steps(self, timesteps: Sequence[float] | Tensor) -> tuple[int, ...]:
        """Return the steps of a schedule at which another network takes over; empty where there is one network."""

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network; return the velocity, and the residual that its trunk added."""

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Return the velocity with a residual in the trunk's place: only what is before and after the trunk runs."""

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return the guided velocity (n, ...) of every branch's; differentiable."""

    def checkpoint_blocks(self) -> bool:
        """Let backward passes recompute the activations within blocks; return whether that frees memory.

        It does not where it is already so, or cannot be.
        """


class WeightedGuidance:
    """The part of a denoiser that is common to single networks with linear guidance.

    `weights`: branch -> its weight in the guided velocity.
    """

    weights: Mapping[str, float]
    linear: bool = True

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""
        return tuple(self.weights)

    def first_steps(self, timesteps: Sequence[float] | Tensor) -> tuple[int, ...]:
        """Return (): there is one network."""
        return ()

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return Σ_b weights[b] · velocities[b]."""
        return guide(self.weights, velocities)

    def checkpoint_blocks(self) -> bool:
        """Return False: there are no blocks to checkpoint."""
        return False


def guide(weights: Mapping[str, float], velocities: Mapping[str, Tensor]) -> Tensor:
    """Return the guided velocity: the weighted sum of the branches' velocities (n, ...)."""
    names = iter(velocities)
    first = next(names)
    total = weights[first] * velocities[first]
    for name in names:
        total = total + weights[name] * velocities[name]
    return total
