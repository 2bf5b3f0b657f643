"""Surrogate: predicts the loss of a mask from the losses of the masks that were rolled out.

    loss ≈ mean + gain · log cost + g        g: a Gaussian process, covariance ∝ exp(-distance / length)

The cost is the sum of the reference run's reuse errors along the mask, weighted by a power of the step's size, as in
dynamic programming (`budc.compiler.search.dp`). The power is the one that leaves the least to g. The gain says how much
of the cost reaches the final latents; it is fitted to the rollouts, and near 1 while these are few. g learns what a sum
leaves out: errors that add up, amplify or cancel. The distance of two masks is by how many steps the computed steps of
one must move to give the other, averaged over the branches.

The mask to roll out next is the one with the largest expected improvement on the least loss so far (Jones, Schonlau,
Welch: Efficient global optimization of expensive black-box functions, 1998, equation 15).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from budc.compiler.search.dp import step_weights
from budc.compiler.search.moves import Slots, mask_count
from budc.compiler.search.space import Space
from budc.schema.policy import Payload

LENGTH = 0.25
"""Distance over which the losses of two masks are correlated, as a share of the steps."""

CEILING = 1.5
"""Log losses that are this much above the least are cut there: how bad a bad mask is tells nothing about good ones."""

POWERS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Powers of the step's size that a cost may have."""

GAIN_PRIOR = 0.5
"""How much a gain of 1 weighs, as the squared deviation of log costs from their mean that would weigh as much."""

NUGGET = 1e-4
"""Variance of a rollout's loss for a given mask, relative to that of the process: nearly none."""


class _Fit(NamedTuple):
    """The trend with one power of the step's size, and the process that explains what it leaves."""

    power: float
    mean: Tensor
    mean_cost: Tensor
    gain: Tensor
    weights: Tensor
    variance: Tensor


class Surrogate:
    """Predictions for masks with one payload, as slots (`budc.compiler.search.moves`), from the losses of others."""

    def __init__(self, space: Space, payload: Payload, losses: Mapping[Slots, float]) -> None:
        self._space, self._count = space, mask_count(space)
        errors = space.errors.get(payload)
        self._errors = None if errors is None else torch.tensor(errors, dtype=torch.float64)
        least = min(losses.values())
        self._least = least if math.isfinite(least) else 0.0
        observed = torch.tensor(list(losses.values()), dtype=torch.float64).clamp(max=self._least + CEILING)
        self._observed_slots = torch.tensor(list(losses))
        covariance = self._covariance(self._observed_slots)
        covariance.diagonal().add_(NUGGET)
        self._factor = torch.linalg.cholesky(covariance)
        # Of equal variances, as where nothing is known of step sizes, the first is taken.
        self._fit = min((self._fitted(observed, power) for power in POWERS), key=lambda fit: fit.variance)

    def improvement(self, masks: Sequence[Slots]) -> list[float]:
        """Return by how much each mask is expected to fall below the least loss."""
        slots = torch.tensor(list(masks))
        covariance = self._covariance(slots)
        fit = self._fit
        loss = (
            fit.mean + fit.gain * (self._costs(slots, fit.power) - fit.mean_cost) + covariance @ fit.weights
        )
        explained = torch.linalg.solve_triangular(self._factor, covariance.T, upper=False).square().sum(0)
        deviation = (fit.variance * (1 - explained).clamp_min(1e-9)).sqrt()
        below = (self._least - loss) / deviation
        density = (-below.square() / 2).exp() / math.sqrt(2 * math.pi)
        improvements: list[float] = (deviation * (below * torch.special.ndtr(below) + density)).tolist()
        return improvements

    def _fitted(self, observed: Tensor, power: float) -> _Fit:
        """Return the fit to the losses that were observed with this power of the step's size."""
        costs = self._costs(self._observed_slots, power)
        mean_cost, mean = costs.mean(), observed.mean()
        centred = costs - mean_cost
        gain = (centred @ (observed - mean) + GAIN_PRIOR) / (centred @ centred + GAIN_PRIOR)
        gain = gain.clamp_min(0)
        residuals = observed - mean - gain * centred
        weights = torch.cholesky_solve(residuals[:, None], self._factor)[:, 0]
        variance = (residuals @ weights / len(residuals)).clamp_min(1e-9)
        return _Fit(power, mean, mean_cost, gain, weights, variance)

    def _covariance(self, slots: Tensor) -> Tensor:
        moved = torch.cdist(slots.double(), self._observed_slots.double(), p=1) / self._count**2
        return (-moved / (LENGTH * self._space.steps)).exp()

    def _costs(self, slots: Tensor, power: float) -> Tensor:
        """Return the log of the weighted reuse errors along each mask, summed, (n,)."""
        total = torch.zeros(len(slots), dtype=torch.float64)
        if self._errors is None:
            return total
        weights = torch.tensor(step_weights(self._space, power), dtype=torch.float64)
        steps = torch.arange(self._space.steps)
        computed = torch.zeros(len(slots), len(steps) * self._count, dtype=torch.bool).scatter_(
            1, slots, True
        )
        for mask in computed.unflatten(1, (-1, self._count)).unbind(-1):
            last = torch.where(mask, steps, 0).cummax(1).values
            earlier = torch.where(mask, last.roll(1, 1), 0)
            earlier[:, 0] = 0
            previous = earlier.gather(1, last)
            total += torch.where(mask, 0.0, weights * self._errors[previous, last, steps]).sum(1)
        return total.clamp_min(1e-12).log()
