"""MagCache (arXiv 2506.09045): reuse until the accumulated error of the residuals' magnitude ratio is too large.

    γ_k = mean over tokens of ‖r_k‖ / ‖r_{k-1}‖ along the full run,       ρ = Π γ since the last computation
    compute where Σ |1 - ρ| since then ≥ threshold

γ is measured once per branch on calibration prompts, so that all samples decide alike. As in its code for Wan, each
branch keeps its own account.

The published settings also compute the first fifth of the steps and cap the number of steps reused in a row at 2 to
4: with them 50 steps take 18 evaluations or more. Here the first step alone is protected and runs are not capped,
since the budgets compared are smaller. The threshold is bisected until the mean NFE is as near to the budget as a rule
that all samples share can come.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quality_methods.dynamic import bisect, roll
from quality_methods.outcome import Outcome
from quality_methods.setting import Setting


@torch.no_grad()
def ratios(setting: Setting) -> dict[str, list[float]]:
    """Return γ of every step after the first, mean over tokens and calibration prompts, per branch."""
    states, conditions = setting.calibration.run.states, setting.calibration.conditions
    gammas: dict[str, list[float]] = {branch: [] for branch in setting.branches}
    before: dict[str, Tensor] = {}
    for step, timestep in enumerate(setting.form.timesteps.float()):
        for branch in setting.branches:
            _, residual = setting.denoiser.compute(states[step], timestep, conditions.embeddings[branch])
            size = residual.norm(dim=-1)
            if branch in before:
                gammas[branch].append(float((size / before[branch]).mean()))
            before[branch] = size
    return gammas


def schedule(gammas: list[float], threshold: float) -> list[bool]:
    """Return where one branch computes."""
    mask, ratio, error = [True], 1.0, 0.0
    for gamma in gammas:
        ratio *= gamma
        error += abs(1 - ratio)
        mask.append(error >= threshold)
        if mask[-1]:
            ratio, error = 1.0, 0.0
    return mask


def magcache(setting: Setting, nfe: int) -> Outcome:
    """Measure, bisect, run."""
    gammas = ratios(setting)

    def masks(threshold: float) -> dict[str, list[bool]]:
        return {branch: schedule(gammas[branch], threshold) for branch in setting.branches}

    def mean_nfe(threshold: float) -> float:
        return sum(sum(mask) for mask in masks(threshold).values()) / len(setting.branches)

    threshold = bisect(mean_nfe, nfe, high=float(setting.form.steps), rounds=40)
    mask_of, size = masks(threshold), len(setting.held_out)

    def decide(step: int, latents: Tensor, timestep: Tensor) -> dict[str, Tensor]:
        return {branch: torch.full((size,), mask[step]) for branch, mask in mask_of.items()}

    latents, counts = roll(setting, setting.held_out, decide)
    steps = {branch: [step for step, on in enumerate(mask) if on] for branch, mask in mask_of.items()}
    chosen = {"threshold": threshold, "steps": steps}
    return Outcome(latents, tuple(counts.tolist()), setting.full_forwards, chosen=chosen)
