"""MeanCache (arXiv 2601.19961): reuse average velocities, corrected by a finite-difference Jacobian-vector product.

    J = (v_i - ū) / (σ_k - σ_i),   ū = (x_k - x_i) / (σ_k - σ_i),   i = k - K
    v̂_k = v_{k-1} - J · (σ_{k+1} - σ_k)

v is the guided velocity (of skipped steps: the one used), ū the average velocity of the last K steps. K = 1 makes
J zero: the velocity is repeated. Which steps compute, and each segment's K, are a shortest path of `nfe` nodes whose
edges are the error of the segment's mean velocity on the calibration prompts, raised to a power that suppresses
peaks. Schedule and K are then fixed for all prompts.

Simplified: the paper's graph may hold several edges between two nodes and its published schedules are tables made
offline; here an edge takes the best K of 1 to 6. An edge's error is the mean absolute error of the segment's mean
velocity, measured with Euler increments from the full run's states; the power is 2. The solver is Euler, for which the
method is published, on the model's own sigmas.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from budc.compiler.comparison.shortest_path import add, shortest
from budc.compiler.denoisers.denoiser import guide
from quality_methods.few_steps import SOLVERS
from quality_methods.outcome import Outcome
from quality_methods.setting import Samples, Setting

SPANS = (1, 2, 3, 4, 5, 6)
POWER = 2


@torch.no_grad()
def guided(setting: Setting, samples: Samples, step: int, latents: Tensor) -> Tensor:
    """Return the guided velocity (N, ...) of a computed step."""
    timestep = setting.form.timesteps.float()[step]
    embeddings = samples.conditions.embeddings
    return guide(
        setting.denoiser.weights,
        {branch: setting.denoiser.compute(latents, timestep, embeddings[branch])[0] for branch in embeddings},
    )


def forecast(
    step: int, span: int, states: Sequence[Tensor], velocities: Sequence[Tensor], sigmas: Sequence[float]
) -> Tensor:
    """Return v̂ of a step from the states up to it and the velocities before it."""
    start = step - min(span, step)
    gap = sigmas[step] - sigmas[start]
    average = (states[step] - states[start]) / gap
    jacobian = (velocities[start] - average) / gap
    return velocities[step - 1] - jacobian * (sigmas[step + 1] - sigmas[step])


def edges(reference: Tensor, velocities: Sequence[Tensor], sigmas: Sequence[float]) -> tuple[list, list]:
    """Return (cost, best span) of computing `a` and then nothing up to `b`, for a < b <= steps."""
    steps = len(velocities)
    costs = [[float("inf")] * (steps + 1) for _ in range(steps)]
    spans = [[1] * (steps + 1) for _ in range(steps)]
    for a in range(steps):
        costs[a][a + 1] = 0.0
        for span in SPANS:
            states = [*reference[: a + 1], reference[a] + (sigmas[a + 1] - sigmas[a]) * velocities[a]]
            used = list(velocities[: a + 1])
            drift = torch.zeros_like(reference[a])
            for k in range(a + 1, steps):
                used.append(forecast(k, span, states, used, sigmas))
                gap = sigmas[k + 1] - sigmas[k]
                states.append(states[-1] + gap * used[-1])
                drift += gap * (used[-1] - velocities[k])
                cost = (float(drift.abs().mean()) / (sigmas[a] - sigmas[k + 1])) ** POWER
                if cost < costs[a][k + 1]:
                    costs[a][k + 1], spans[a][k + 1] = cost, span
    return costs, spans


def meancache(setting: Setting, nfe: int) -> Outcome:
    """Plan on the calibration prompts, run on the held-out ones."""
    sigmas = setting.sampler.sigmas
    form = SOLVERS["euler"](setting)(torch.tensor(sigmas).double(), setting.form.timesteps)
    reference = setting.calibration.run.states
    full = [guided(setting, setting.calibration, step, reference[step]) for step in range(form.steps)]
    costs, spans = edges(reference, full, sigmas)
    steps = shortest(costs, nfe, add)
    span = {
        k: spans[a][b] for a, b in zip(steps, (*steps[1:], form.steps), strict=True) for k in range(a + 1, b)
    }
    noise, velocities = setting.held_out.conditions.noise, list[Tensor]()
    states = [noise]
    for step in range(form.steps):
        if step in span:
            velocities.append(forecast(step, span[step], states, velocities, sigmas))
        else:
            velocities.append(guided(setting, setting.held_out, step, states[-1]))
        states.append(form.latents(step + 1, noise, velocities))
    chosen = {"steps": list(steps), "spans": [span.get(a + 1, 0) for a in steps]}
    return Outcome(states[-1], (float(nfe),) * len(noise), setting.full_forwards, chosen=chosen)
