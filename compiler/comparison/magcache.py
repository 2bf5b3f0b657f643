"""MagCache (arXiv 2506.09045): reuse until the accumulated error of the residuals' magnitude ratio is too large.

    γ_k = mean over tokens of ‖r_k‖ / ‖r_{k-1}‖ along the full run,       ρ = Π γ since the last computation
    compute where Σ |1 - ρ| since then ≥ threshold

γ is measured once per branch on calibration prompts, so that all samples decide alike. As in its code for Wan, each
branch keeps its own account.

The published settings also compute the first fifth of the steps and cap the number of steps reused in a row at 2 to
4: with them 50 steps take 18 evaluations or more. Here the first step alone is protected and runs are not capped,
since the budgets compared are smaller. The threshold is bisected until the mean NFE is as near to the budget as a rule
that all samples share can come. What it gives is a policy with a mask for each branch; where a pipeline runs its
branches in one forward, the first branch decides for all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from budc.compiler.comparison.dynamic import bisect
from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.setting import Setting
from budc.schema.mask import StepMask
from budc.schema.policy import Policy
from budc.schema.predictor import Predictor


@torch.no_grad()
def ratios(setting: Setting) -> dict[str, list[float]]:
    """Return γ of every step after the first, mean over tokens and calibration prompts, per branch."""
    samples = setting.calibration
    network = setting.network(samples)
    gammas: dict[str, list[float]] = {branch: [] for branch in setting.branches}
    before: dict[str, Tensor] = {}
    for step, timestep in enumerate(setting.form.timesteps.float()):
        for branch in setting.branches:
            _, residual = network.compute(branch, samples.run.state(step).float(), timestep)
            size = residual.float().norm(dim=-1)
            if branch in before:
                gammas[branch].append(float((size / before[branch]).mean()))
            before[branch] = size
    return gammas


def schedule(gammas: list[float], threshold: float, forced: tuple[int, ...] = ()) -> list[bool]:
    """Return where one branch computes; it does so at `forced` steps, too."""
    mask, ratio, error = [True], 1.0, 0.0
    for step, gamma in enumerate(gammas, 1):
        ratio *= gamma
        error += abs(1 - ratio)
        mask.append(error >= threshold or step in forced)
        if mask[-1]:
            ratio, error = 1.0, 0.0
    return mask


def magcache(setting: Setting, nfe: int) -> Fitted:
    """Measure the ratios and bisect the threshold."""
    gammas, forced = ratios(setting), setting.sampler.first_steps
    if setting.batched:
        gammas = dict.fromkeys(gammas, gammas[setting.branches[0]])

    def masks(threshold: float) -> dict[str, list[bool]]:
        return {branch: schedule(gammas[branch], threshold, forced) for branch in setting.branches}

    def mean_nfe(threshold: float) -> float:
        return sum(sum(mask) for mask in masks(threshold).values()) / len(setting.branches)

    threshold = bisect(mean_nfe, nfe, high=float(setting.form.steps), rounds=40)
    mask_of = {branch: StepMask.of(mask) for branch, mask in masks(threshold).items()}
    policy = Policy.of(
        "trunk-residual", {branch: Predictor.plain_reuse(mask) for branch, mask in mask_of.items()}
    )
    steps = {branch: list(mask.compute_steps) for branch, mask in mask_of.items()}
    # One full run can measure the magnitudes as well; here it is run again, which is not counted.
    chosen = {"threshold": threshold, "steps": steps}
    return Fitted(policy=policy, forwards=setting.full_forwards, chosen=chosen)
