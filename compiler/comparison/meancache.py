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

from collections.abc import Mapping, Sequence

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from budc.compiler.comparison.fitted import AverageVelocities, Fitted
from budc.compiler.comparison.setting import Setting
from budc.compiler.comparison.shortest_path import add, shortest
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.rollouts.linear_form import LinearForm, linear_form

SPANS = (1, 2, 3, 4, 5, 6)
POWER = 2


def euler(setting: Setting) -> LinearForm:
    """Return Euler on the model's own sigmas."""
    sigmas, timesteps = setting.sampler.sigmas, setting.form.timesteps
    return linear_form(FlowMatchEulerDiscreteScheduler(), torch.tensor(sigmas).double(), timesteps)


@torch.no_grad()
def guided(setting: Setting, conditions: Conditioning, step: int, latents: Tensor) -> Tensor:
    """Return the guided velocity (N, ...) of a computed step."""
    timestep = setting.form.timesteps.float()[step]
    network = setting.network_of(conditions)
    velocities = {branch: network.compute(branch, latents, timestep)[0] for branch in setting.branches}
    return setting.denoiser.guide(velocities, timestep)


def forecast(
    step: int, span: int, states: Sequence[Tensor], velocities: Sequence[Tensor], sigmas: Sequence[float]
) -> Tensor:
    """Return v̂ of a step from the states up to it and the velocities before it."""
    start = step - min(span, step)
    gap = sigmas[step] - sigmas[start]
    average = (states[step] - states[start]) / gap
    jacobian = (velocities[start] - average) / gap
    return velocities[step - 1] - jacobian * (sigmas[step + 1] - sigmas[step])


def edges(
    reference: Sequence[Tensor], velocities: Sequence[Tensor], sigmas: Sequence[float]
) -> tuple[list[list[float]], list[list[int]]]:
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


def meancache(setting: Setting, nfe: int) -> Fitted:
    """Plan computed steps and spans on the calibration prompts."""
    samples, sigmas = setting.calibration, setting.sampler.sigmas
    steps = setting.form.steps
    reference = [samples.run.state(step).float() for step in range(steps)]
    # One full run can give the velocities as well; here it is run again, which is not counted.
    full = [guided(setting, samples.conditions, step, reference[step]) for step in range(steps)]
    costs, spans = edges(reference, full, sigmas)
    computed = shortest(costs, nfe, add)
    intervals = zip(computed, (*computed[1:], steps), strict=True)
    span = {k: spans[a][b] for a, b in intervals for k in range(a + 1, b)}
    chosen = {"steps": list(computed), "spans": [span.get(a + 1, 0) for a in computed]}
    return Fitted(averages=AverageVelocities(spans=span), forwards=setting.full_forwards, chosen=chosen)


def roll_out(setting: Setting, spans: Mapping[int, int], conditions: Conditioning) -> tuple[Tensor, Tensor]:
    """Return the final latents (N, ...) where each step in `spans` is forecast, and the evaluations (N,)."""
    form, sigmas = euler(setting), setting.sampler.sigmas
    noise, velocities = conditions.noise, list[Tensor]()
    states = [noise]
    for step in range(form.steps):
        if step in spans:
            velocities.append(forecast(step, spans[step], states, velocities, sigmas))
        else:
            velocities.append(guided(setting, conditions, step, states[-1]))
        states.append(form.latents(step + 1, noise, velocities))
    nfe = float(form.steps - len(spans))
    return states[-1], torch.full((len(conditions),), nfe, dtype=torch.float64)
