"""The unrolled sampler: final latents as a differentiable function of coefficients and sigmas.

Computed steps are checkpointed: their activations are made again on the way back, so memory is that of one
forward and the states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.fitting.trajectory import from_differences, to_differences
from budc.compiler.rollouts.linear_form import LinearForm, linear_form, trainable
from budc.runtimes.sampling.trunk import combine
from budc.schema.policy import Policy

Row = Sequence[float | Tensor]


class Parameters(Protocol):
    """What is trained: `groups` name its tensors, `form` and `row` are functions of them."""

    @property
    def payload(self) -> str:
        """What is reused, as in a policy."""

    @property
    def groups(self) -> Mapping[str, Tensor]:
        """Name -> leaf tensor, float64."""

    def form(self) -> LinearForm:
        """Return the solver's linear form."""

    def row(self, branch: str, step: int) -> Row:
        """Return a branch's coefficients at a step, newest first; empty where it computes."""


@dataclass
class PolicyParameters:
    """A policy's coefficients, in the basis of differences, and where `learn_sigmas` its sigmas.

    Sigmas are first + (last - first) · cumsum(softmax(log gaps + offsets)), so that they stay monotone with both
    ends pinned whatever the offsets are. The two on either side of each of `first_steps` are pinned as well, so that
    no step changes over to another network.
    """

    policy: Policy
    scheduler: object
    sigmas: Sequence[float]
    timesteps: Sequence[float]
    learn_sigmas: bool
    learn_rows: bool = True
    first_steps: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.payload: str = self.policy.payload
        self._rows: dict[tuple[str, int], Tensor] = {}
        self._places: dict[tuple[str, int], slice] = {}
        values: list[Tensor] = []
        used = 0
        for entry in self.policy.branches:
            for name in entry.names:
                for step, row in enumerate(entry.predictor):
                    if row:
                        self._places[name, step] = slice(used, used + len(row))
                        used += len(row)
                        values.append(to_differences(row))
        self.groups: dict[str, Tensor] = {}
        self._coefficients = torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)
        if self.learn_rows and used:
            self.groups["coefficients"] = self._coefficients.requires_grad_(True)
        schedule = trainable(self.scheduler, torch.tensor(list(self.sigmas), dtype=torch.float64))
        self._schedule = schedule
        inner = (place for first in self.first_steps for place in (first - 1, first))
        self._pins = sorted({0, *inner, len(schedule) - 1})
        self._gaps = ((schedule[:-1] - schedule[1:]) / (schedule[0] - schedule[-1])).log()
        self._offsets = torch.zeros_like(self._gaps)
        if self.learn_sigmas:
            self.groups["sigmas"] = self._offsets.requires_grad_(True)
        # Schedules of their own round timesteps to integers; a learned one has sigma times this, exactly.
        known = getattr(getattr(self.scheduler, "config", None), "num_train_timesteps", None)
        self.scale = float(known or self.timesteps[0] / float(schedule[0]))
        self._fixed = linear_form(self.scheduler, self.sigmas, self.timesteps)

    def schedule(self) -> Tensor:
        """Return the sigmas (steps + 1,) float64."""
        parts = [self._schedule[:1]]
        for start, end in pairwise(self._pins):
            share = torch.softmax((self._gaps + self._offsets)[start:end], 0).cumsum(0)
            first, last = self._schedule[start], self._schedule[end : end + 1]
            parts += [first + (last - first) * share[:-1], last]
        return torch.cat(parts)

    def form(self) -> LinearForm:
        """Return the solver on the present sigmas; timesteps follow them."""
        if not self.learn_sigmas:
            return self._fixed
        sigmas = self.schedule()
        form = linear_form(self.scheduler, sigmas, sigmas[:-1].detach() * self.scale)
        return LinearForm(form.start, form.velocity, sigmas[:-1] * self.scale)

    def row(self, branch: str, step: int) -> Row:
        """Return a branch's coefficients at a step, newest first; empty where it computes."""
        place = self._places.get((branch, step))
        return () if place is None else tuple(from_differences(self._coefficients[place]).unbind())


def differentiable_rollout(denoiser: Denoiser, parameters: Parameters, conditions: Conditioning) -> Tensor:
    """Return the final latents (n, ...) on the denoiser's device."""
    device, branches = denoiser.device, denoiser.branches
    conditions = conditions.to(device)
    noise, embeddings = conditions.noise, conditions.embeddings
    form = parameters.form()
    form = LinearForm(form.start.to(device), form.velocity.to(device), form.timesteps.to(device).float())
    first_steps = denoiser.first_steps(form.timesteps.detach())
    residuals: dict[str, list[Tensor]] = {name: [] for name in branches}
    guided: list[Tensor] = []
    for step in range(form.steps):
        latents, timestep = form.latents(step, noise, guided), form.timesteps[step]
        found = {}
        if step in first_steps:
            residuals = {name: [] for name in branches}
        for branch in branches:
            row = parameters.row(branch, step)
            if not row:
                velocity, residual = checkpoint(
                    denoiser.compute, latents, timestep, embeddings[branch], use_reentrant=False
                )
                found[branch] = velocity.float()
                kept = found[branch] if parameters.payload == "velocity" else residual
                residuals[branch] = [kept, *residuals[branch]][:3]
                continue
            predicted = combine([_on(value, device) for value in row], residuals[branch][: len(row)])
            found[branch] = (
                predicted
                if parameters.payload == "velocity"
                else denoiser.reuse(predicted, latents, timestep, embeddings[branch]).float()
            )
        guided.append(denoiser.guide(found, timestep))
    return form.latents(form.steps, noise, guided)


def _on(value: float | Tensor, device: torch.device) -> float | Tensor:
    return value.to(device, torch.float32) if isinstance(value, Tensor) else value
