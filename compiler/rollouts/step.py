"""One step of rollouts: branches compute or reuse, the guidance combines them, the solver goes on.

    latents x_k          the solver's linear form of the noise and the guided velocities so far
    velocity v_b         of every branch: computed, or from a combination of what it has cached
    guided velocity      guide(v), which decides x_{k+1}

Reference run, policy rollout, tree of candidates and differentiable rollout all take this step. They differ in their
`Trajectory`: which branches compute, what is kept of them, and what the others reuse.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.payloads import CACHED_PAYLOADS, CachedPayload
from budc.schema.policy import Payload


class StepDenoiser(Protocol):
    """A denoiser over the samples of rollouts; latents of several rollouts may be stacked, (c · N, ...)."""

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""

    def compute(self, branch: str, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Return (velocity, residual) of one branch."""

    def reuse(self, branch: str, residual: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the velocity of one branch with a residual in its trunk's place."""

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return the guided velocity (N, ...) of every branch's, in the order of `branches`."""


class Trajectory(ABC):
    """A rollout under way: its noise (N, ...) and the guided velocities of the steps it has taken."""

    def __init__(self, form: LinearForm, noise: Tensor, payload: Payload) -> None:
        self.form = form
        self.noise = noise
        self.payload: CachedPayload = CACHED_PAYLOADS[payload]
        self.velocities: list[Tensor] = []

    @property
    def step(self) -> int:
        """The step that comes next."""
        return len(self.velocities)

    @property
    def latents(self) -> Tensor:
        """The latents (N, ...) that the next step starts from; the final ones after the last step."""
        return self.form.latents(self.step, self.noise, self.velocities)

    @abstractmethod
    def computing(self) -> Collection[str]:
        """Return the branches that compute at this step. Called once a step."""

    def record(self, branch: str, velocity: Tensor, residual: Tensor) -> None:
        """Cache what a branch has computed at this step."""
        self.cache(branch, self.payload.cached(velocity, residual))

    @abstractmethod
    def cache(self, branch: str, cached: Tensor) -> None:
        """Keep what later steps may reuse of a branch that has computed at this step."""

    @abstractmethod
    def reused(self, current: CurrentStep) -> Mapping[str, Tensor]:
        """Return what every other branch reuses at this step, combined. Called after the computing ones are cached."""


@dataclass(frozen=True)
class CurrentStep:
    """The step that a trajectory is at, and the velocities of those of its branches that computed."""

    denoiser: StepDenoiser
    trajectory: Trajectory
    timestep: Tensor
    computed: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def latents(self) -> Tensor:
        """The latents (N, ...) that it starts from; a reused velocity needs none."""
        return self.trajectory.latents

    def velocity(self, branch: str, cached: Tensor) -> Tensor:
        """Return the velocity of a branch that reuses `cached`."""

        def reuse(residual: Tensor) -> Tensor:
            return self.denoiser.reuse(branch, residual, self.latents, self.timestep)

        return self.trajectory.payload.velocity(cached, reuse)

    def guide(self, reused: Mapping[str, Tensor]) -> Tensor:
        """Return the guided velocity, given those of the branches that reuse."""
        velocities = {**self.computed, **reused}
        return self.denoiser.guide(
            {branch: velocities[branch] for branch in self.denoiser.branches}, self.timestep
        )


def take_step(denoiser: StepDenoiser, trajectories: Sequence[Trajectory]) -> None:
    """Take the step that all trajectories are at, in place; those that compute a branch do so in one batch."""
    step = trajectories[0].step
    timestep = trajectories[0].form.timesteps[step].float()
    computing = [trajectory.computing() for trajectory in trajectories]
    current = [CurrentStep(denoiser, trajectory, timestep) for trajectory in trajectories]
    for branch in denoiser.branches:
        chosen = [index for index, branches in enumerate(computing) if branch in branches]
        if not chosen:
            continue
        stacked = torch.cat([current[index].latents for index in chosen])
        velocity, residual = denoiser.compute(branch, stacked, timestep)
        samples = len(stacked) // len(chosen)
        parts = zip(velocity.split(samples), residual.split(samples), strict=True)
        for index, part in zip(chosen, parts, strict=True):
            # A part is a view of the whole stack, which would live as long as the part.
            own_velocity, own_residual = part if len(chosen) == 1 else map(torch.Tensor.clone, part)
            current[index].computed[branch] = own_velocity
            trajectories[index].record(branch, own_velocity, own_residual)
    for trajectory, at in zip(trajectories, current, strict=True):
        cached = trajectory.reused(at)
        trajectory.velocities.append(
            at.guide({branch: at.velocity(branch, value) for branch, value in cached.items()})
        )
