"""Rollouts in which every sample decides at every step whether to compute: caching by threshold.

The newest residual is reused plainly. Samples of one step that compute do so in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition, map_condition
from budc.compiler.denoisers.denoiser import guide
from quality_methods.setting import Samples, Setting


class Decider(Protocol):
    """A caching rule during a rollout; it keeps the accumulated error of every sample and branch."""

    def __call__(self, step: int, latents: Tensor, timestep: Tensor) -> Mapping[str, Tensor]:
        """Return for every branch which samples compute this step, (N,) bool."""


@torch.no_grad()
def roll(setting: Setting, samples: Samples, decide: Decider) -> tuple[Tensor, Tensor]:
    """Return the final latents (N, ...) and the evaluations per branch of every sample (N,)."""
    denoiser, form, conditions = setting.denoiser, setting.form, samples.conditions
    noise, guided = conditions.noise, list[Tensor]()
    residuals: dict[str, Tensor] = {}
    counts = torch.zeros(len(samples), dtype=torch.float64)
    for step, timestep in enumerate(form.timesteps.float()):
        latents = form.latents(step, noise, guided)
        computing = decide(step, latents, timestep)
        velocities = {}
        for branch in denoiser.weights:
            chosen = computing[branch] if step else torch.ones(len(samples), dtype=torch.bool)
            condition = conditions.embeddings[branch]
            velocity = torch.empty_like(latents)
            if chosen.any():
                velocity[chosen], fresh = denoiser.compute(
                    latents[chosen], timestep, _rows(condition, chosen)
                )
                residuals.setdefault(branch, torch.empty(len(samples), *fresh.shape[1:]))[chosen] = fresh
            if (~chosen).any():
                cached = residuals[branch][~chosen]
                velocity[~chosen] = denoiser.reuse(
                    cached, latents[~chosen], timestep, _rows(condition, ~chosen)
                )
            velocities[branch] = velocity
            counts += chosen.double() / len(denoiser.weights)
        guided.append(guide(denoiser.weights, velocities))
    return form.latents(form.steps, noise, guided), counts


def _rows(condition: Condition, chosen: Tensor) -> Condition:
    return map_condition(condition, lambda tensor: tensor[chosen])


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
