"""The unrolled sampler: final latents as a differentiable function of coefficients and sigmas.

Computed steps are checkpointed: their activations are computed again in the backward pass, so memory is that of one
forward and of the latents.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.step import CurrentStep, Trajectory, take_step
from budc.compiler.training.parameters import Parameters, Row
from budc.runtimes.sampling.trunk import combine
from budc.schema.predictor import MAX_TERMS


def differentiable_rollout(denoiser: Denoiser, parameters: Parameters, conditions: Conditioning) -> Tensor:
    """Return the final latents (n, ...) on the denoiser's device."""
    device = denoiser.device
    form = parameters.form()
    form = LinearForm(form.start.to(device), form.velocity.to(device), form.timesteps.to(device).float())
    checkpointed = _CheckpointedDenoiser(denoiser, conditions.to(device))
    trajectory = _ParametersTrajectory(checkpointed, form, parameters)
    for _ in range(form.steps):
        take_step(checkpointed, [trajectory])
    return trajectory.latents


@dataclass(frozen=True)
class _CheckpointedDenoiser:
    """A denoiser over conditions (n, ...) on its own device; activations of computed steps are not kept."""

    denoiser: Denoiser
    conditions: Conditioning

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""
        return self.denoiser.branches

    def compute(self, branch: str, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Return (velocity, residual) of one branch."""
        condition = self.conditions.embeddings[branch]
        velocity, residual = checkpoint(
            self.denoiser.compute, latents, timestep, condition, use_reentrant=False
        )
        return velocity.float(), residual

    def reuse(self, branch: str, residual: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the velocity of one branch with a residual in its trunk's place."""
        return self.denoiser.reuse(residual, latents, timestep, self.conditions.embeddings[branch]).float()

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return the guided velocity of every branch's."""
        return self.denoiser.guide(velocities, timestep)


class _ParametersTrajectory(Trajectory):
    """A rollout under parameters in training, by their present rows."""

    def __init__(self, denoiser: _CheckpointedDenoiser, form: LinearForm, parameters: Parameters) -> None:
        super().__init__(form, denoiser.conditions.noise, parameters.payload)
        self._parameters = parameters
        self._branches = denoiser.branches
        self._first_steps = denoiser.denoiser.first_steps(form.timesteps.detach())
        self._cached: dict[str, tuple[Tensor, ...]] = {}
        self._rows: dict[str, Row] = {}

    def computing(self) -> Collection[str]:
        """Return the branches without coefficients at this step."""
        if self.step in self._first_steps:
            self._cached.clear()
        self._rows = {branch: self._parameters.row(branch, self.step) for branch in self._branches}
        return [branch for branch, row in self._rows.items() if not row]

    def cache(self, branch: str, cached: Tensor) -> None:
        """Keep the newest, as many as a row may combine."""
        self._cached[branch] = (cached, *self._cached.get(branch, ()))[:MAX_TERMS]

    def reused(self, current: CurrentStep) -> Mapping[str, Tensor]:
        """Combine by the present rows."""
        return {
            branch: combine([self._on_device(value) for value in row], self._cached[branch][: len(row)])
            for branch, row in self._rows.items()
            if row
        }

    def _on_device(self, coefficient: float | Tensor) -> float | Tensor:
        if isinstance(coefficient, Tensor):
            return coefficient.to(self.noise.device, torch.float32)
        return coefficient
