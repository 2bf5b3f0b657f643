"""Rollouts in which every sample decides at every step whether to compute: caching by threshold.

The newest residual is reused plainly. Samples of one step that compute do so in one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.comparison.setting import Setting
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning


class Decider(Protocol):
    """A caching rule during a rollout; it keeps the accumulated error of every sample."""

    def __call__(self, step: int, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return which samples compute this step, (N,) bool."""


@torch.no_grad()
def roll(setting: Setting, conditions: Conditioning, decide: Decider) -> tuple[Tensor, Tensor]:
    """Return the final latents (N, ...) and the evaluations per branch of every sample (N,).

    The first step is computed whatever the rule says, and so is each at which another denoiser takes over.
    """
    form, noise, guided = setting.form, conditions.noise, list[Tensor]()
    forced = {0, *setting.sampler.first_steps}
    residuals: dict[str, Tensor] = {}
    counts = torch.zeros(len(conditions), dtype=torch.float64)
    for step, timestep in enumerate(form.timesteps.float()):
        latents = form.latents(step, noise, guided)
        chosen = decide(step, latents, timestep)
        if step in forced:
            chosen = torch.ones_like(chosen)
        computing, reusing = (mask.nonzero()[:, 0].tolist() for mask in (chosen, ~chosen))
        velocities = {branch: torch.empty_like(latents) for branch in setting.branches}
        if computing:
            network = BatchedDenoiser(setting.denoiser, conditions.rows(computing))
            for branch, velocity in velocities.items():
                velocity[computing], fresh = network.compute(branch, latents[computing], timestep)
                residuals.setdefault(branch, torch.empty(len(latents), *fresh.shape[1:], dtype=fresh.dtype))[
                    computing
                ] = fresh
        if reusing:
            network = BatchedDenoiser(setting.denoiser, conditions.rows(reusing))
            for branch, velocity in velocities.items():
                cached = residuals[branch][reusing]
                velocity[reusing] = network.reuse(branch, cached, latents[reusing], timestep)
        counts += chosen.double()
        guided.append(setting.denoiser.guide(velocities, timestep))
    return form.latents(form.steps, noise, guided), counts


def bisect(mean_nfe: Callable[[float], float], nfe: int, high: float, rounds: int = 16) -> float:
    """Return the threshold tried whose mean NFE is nearest to the budget; of two equally near, the cheaper one.

    `mean_nfe` falls as the threshold rises, from all steps at 0; `high` must be above the threshold that is searched.
    """
    low, tried = 0.0, dict[float, float]()
    for _ in range(rounds):
        middle = (low + high) / 2
        tried[middle] = mean_nfe(middle)
        if tried[middle] == nfe:
            return middle
        low, high = (middle, high) if tried[middle] > nfe else (low, middle)
    return min(tried, key=lambda value: (abs(tried[value] - nfe), tried[value] > nfe))
