"""DPCache (arXiv 2602.22654) as SGLang serves it: the trunk's output forecast on a line, and an exact plan.

    ĥ_t = h_j + (h_j - h_i) · (t - j) / (j - i)              i < j: the two newest computed steps
    C(i, j, k) = Σ_{j < t < k} mean |ĥ_t - h_t|              along the full run, mean over prompts and branches

C is what the steps between j and k cost where i, j, k are computed one after the other. A dynamic programme over the
two newest computed steps finds the plan of the smallest sum. The first three steps are computed, as SGLang does by
default.

SGLang forecasts in bfloat16; here the forecast has the dtype of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.comparison.setting import ModelSetting
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.models.denoiser import model_denoiser
from budc.runtimes.sampling.rules import fixed_rows
from budc.schema.mask import StepMask
from budc.schema.policy import Policy
from budc.schema.predictor import Predictor

LEADING = 3
"""Computed steps at the beginning."""


def forecast_errors(outputs: Tensor) -> Tensor:
    """Return E[i, j, t] = mean |ĥ_t - h_t| for i < j < t, else 0, of the trunk's outputs at all steps (steps, ...)."""
    steps = len(outputs)
    errors = torch.zeros(steps, steps, steps, dtype=torch.float64)
    for j in range(1, steps - 1):
        ahead = torch.arange(1, steps - j).view(-1, *[1] * (outputs.ndim - 1))
        for i in range(j):
            forecast = outputs[j] + (outputs[j] - outputs[i]) / (j - i) * ahead
            errors[i, j, j + 1 :] = (forecast - outputs[j + 1 :]).abs().flatten(1).double().mean(1)
    return errors


@torch.no_grad()
def mean_errors(setting: ModelSetting) -> Tensor:
    """Return E, mean over calibration prompts and branches; one sample's outputs are in memory at a time."""
    samples, denoiser = setting.calibration, model_denoiser(setting.model, "trunk-output")
    timesteps = setting.form.timesteps.float()
    total = torch.zeros(*[len(timesteps)] * 3, dtype=torch.float64)
    for index in range(len(samples)):
        one = samples.part(index, index + 1)
        network = BatchedDenoiser(denoiser, one.conditions)
        for branch in setting.branches:
            # One full run can give the outputs as well; here it is run again, which is not counted.
            outputs = [
                network.compute(branch, one.run.state(step).float(), timestep)[1].float()
                for step, timestep in enumerate(timesteps)
            ]
            total += forecast_errors(torch.cat(outputs))
    return total / (len(samples) * len(setting.branches))


def plan(errors: Tensor, nfe: int, leading: int = LEADING) -> tuple[int, ...]:
    """Return the `nfe` computed steps whose forecasts have the smallest sum of errors."""
    steps = len(errors)
    # sums[i][j][k] = C(i, j, k + 1)
    sums: Sequence[Sequence[Sequence[float]]] = errors.cumsum(2).tolist()
    best = {(leading - 2, leading - 1): (0.0, tuple(range(leading)))}
    for _ in range(leading, nfe):
        further: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
        for (i, j), (cost, path) in best.items():
            for k in range(j + 1, steps):
                reached = cost + sums[i][j][k - 1], (*path, k)
                if (j, k) not in further or reached < further[j, k]:
                    further[j, k] = reached
        best = further
    return min((cost + sums[i][j][steps - 1], path) for (i, j), (cost, path) in best.items())[1]


def dpcache(setting: ModelSetting, nfe: int) -> Fitted:
    """Plan the computed steps on the calibration prompts.

    Raises:
        CannotRun: the budget is below the steps that are always computed.
    """
    if nfe < LEADING:
        raise CannotRun(f"computes its first {LEADING} steps")
    steps = plan(mean_errors(setting), nfe)
    mask = StepMask.from_compute_steps(setting.form.steps, steps)
    predictor = Predictor.of(fixed_rows("linear", mask), mask)
    policy = Policy.of("trunk-output", dict.fromkeys(setting.branches, predictor))
    return Fitted(policy=policy, forwards=setting.full_forwards, chosen={"steps": list(steps)})
