"""TaylorSeer (arXiv 2503.06923): compute every N-th step, forecast the others by a Taylor series of differences.

    r̂(k) = Σ_{i ≤ order} f⁽ⁱ⁾ (k - k_0)ⁱ / i!        f⁽ⁱ⁾ = (f⁽ⁱ⁻¹⁾(k_0) - f⁽ⁱ⁻¹⁾(k_1)) / (k_0 - k_1)

k_0, k_1 are the newest computed steps. A forecast is a linear combination of the last order + 1 residuals with
coefficients that are known in advance, so it runs as a policy with predictor rows.

The published code forecasts the output of every attention and feed-forward layer; here the residual of the whole
trunk is forecast, which takes less memory and the same NFE. The interval is the smallest that stays within the budget;
evaluations that are left over go to the first steps, as an option of the published code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.comparison.setting import Setting
from budc.compiler.rollouts.policies import shared_policy
from budc.schema.mask import StepMask
from budc.schema.predictor import Predictor


def schedule(steps: int, nfe: int) -> tuple[int, int, tuple[int, ...]]:
    """Return (interval, leading computed steps, computed steps) with exactly `nfe` computed steps.

    Raises:
        CannotRun: no interval meets the budget.
    """
    for interval in range(1, steps + 1):
        for leading in range(1, nfe + 1):
            computed = (*range(leading - 1), *range(leading - 1, steps, interval))
            if len(computed) == nfe:
                return interval, leading, computed
    raise CannotRun(f"no interval computes {nfe} of {steps} steps")


def coefficients(step: int, computed: Sequence[int], order: int) -> tuple[float, ...]:
    """Return the coefficients of the residuals of `computed`, newest first, in the forecast of `step`."""
    derivative = [[float(row == column) for column in range(len(computed))] for row in range(len(computed))]
    forecast, factor = [0.0] * len(computed), 1.0
    for power in range(min(order, len(computed) - 1) + 1):
        if power:
            derivative = [
                [(new - old) / (computed[at] - computed[at + 1]) for new, old in zip(*pair, strict=True)]
                for at, pair in enumerate(pairwise(derivative))
            ]
            factor *= (step - computed[0]) / power
        forecast = [value + factor * term for value, term in zip(forecast, derivative[0], strict=True)]
    return tuple(forecast[: min(order + 1, len(computed))])


def taylorseer(setting: Setting, nfe: int, order: int) -> Fitted:
    """Return the forecast of an order at the interval that spends the budget."""
    interval, leading, computed = schedule(setting.form.steps, nfe)
    mask = StepMask.from_compute_steps(setting.form.steps, computed)
    rows = [
        () if compute else coefficients(step, [k for k in reversed(computed) if k < step][: order + 1], order)
        for step, compute in enumerate(mask)
    ]
    policy = shared_policy(mask, Predictor.of(rows, mask), setting.branches)
    chosen = {"interval": interval, "leading": leading, "order": order, "steps": list(computed)}
    return Fitted(policy=policy, chosen=chosen)
