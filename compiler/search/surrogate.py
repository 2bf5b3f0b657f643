"""Surrogate: predicts the loss of a mask from the losses of the masks that were rolled out.

    loss ≈ mean + gain · log cost + g        g: a Gaussian process, covariance ∝ exp(-distance / length)

The cost is the sum of the reference run's reuse errors along the mask, weighted by a power of the step's size, as in
dynamic programming (`budc.compiler.search.dp`). The power is the one that leaves the least to g. The gain says how much
of the cost reaches the final latents; it is fitted to the rollouts, and near 1 while these are few. g learns what a sum
leaves out: errors that add up, amplify or cancel. The distance of two masks is by how many steps the computed steps of
one must move to give the other, averaged over the branches.

Where masks were scored on several groups of prompts, predictions are of the mean over all groups. Each group has an
offset, as its prompts are easy or hard, and part of g is its own, as a mask suits some prompts and not others. That is
kriging of several tasks with an intrinsic coregionalization (Bonilla, Chai, Williams: Multi-task Gaussian process
prediction, 2007, equation 2). So a mask that is good on the prompts of one group alone is not believed for long.

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
from budc.compiler.search.moves import Slots, Trial, mask_count
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

SHARED = 0.5
"""Of several groups: the share of the process that all have in common. The likelihood of losses is greatest about there
(docs/adr/0015-trials.md)."""


class _Fit(NamedTuple):
    """The trend with one power of the step's size, and the process that explains what it leaves."""

    power: float
    mean: Tensor
    mean_cost: Tensor
    gain: Tensor
    weights: Tensor
    variance: Tensor


class Surrogate:
    """Predictions for masks with one payload, as slots (`budc.compiler.search.moves`), from the losses of trials."""

    def __init__(self, space: Space, payload: Payload, losses: Mapping[Trial, float]) -> None:
        self._space, self._count = space, mask_count(space)
        errors = space.errors.get(payload)
        self._errors = None if errors is None else torch.tensor(errors, dtype=torch.float64)
        groups = torch.tensor([trial.group for trial in losses])
        self._members = (groups[:, None] == groups.unique()).double()
        observed = _capped(torch.tensor(list(losses.values()), dtype=torch.float64), groups)
        self._observed_slots = torch.tensor([trial.slots for trial in losses])
        same = self._members @ self._members.T
        covariance = self._covariance(self._observed_slots) * (SHARED + (1 - SHARED) * same)
        covariance.diagonal().add_(NUGGET)
        self._factor = torch.linalg.cholesky(covariance)
        # Of equal variances, as where nothing is known of step sizes, the first is taken.
        self._fit = min((self._fitted(observed, power) for power in POWERS), key=lambda fit: fit.variance)
        scored = list(losses.values())
        if space.groups > 1:
            scored = self._predicted(self._observed_slots)[0].tolist()
        self.losses: dict[Slots, float] = {
            trial.slots: loss for trial, loss in zip(losses, scored, strict=True)
        }
        """The losses of the masks that were scored: as they are of one group, or the predicted mean over several."""
        least = min(scored)
        self._least = least if math.isfinite(least) else 0.0

    def improvement(self, masks: Sequence[Slots]) -> list[float]:
        """Return by how much each mask is expected to fall below the least loss."""
        loss, deviation = self._predicted(torch.tensor(list(masks)))
        below = (self._least - loss) / deviation
        density = (-below.square() / 2).exp() / math.sqrt(2 * math.pi)
        improvements: list[float] = (deviation * (below * torch.special.ndtr(below) + density)).tolist()
        return improvements

    def _predicted(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over all groups of the loss of each mask, (n,), and its standard deviation."""
        fit, share = self._fit, SHARED + (1 - SHARED) / self._space.groups
        covariance = self._covariance(slots) * share
        loss = (
            fit.mean + fit.gain * (self._costs(slots, fit.power) - fit.mean_cost) + covariance @ fit.weights
        )
        explained = torch.linalg.solve_triangular(self._factor, covariance.T, upper=False).square().sum(0)
        return loss, (fit.variance * (share - explained).clamp_min(1e-9)).sqrt()

    def _fitted(self, observed: Tensor, power: float) -> _Fit:
        """Return the fit to the losses that were observed with this power of the step's size."""
        costs = self._costs(self._observed_slots, power)
        mean_cost = costs.mean()
        dearer, worse = self._within_groups(costs), self._within_groups(observed)
        gain = (dearer @ worse + GAIN_PRIOR) / (dearer @ dearer + GAIN_PRIOR)
        gain = gain.clamp_min(0)
        residuals = observed - gain * (costs - mean_cost)
        offsets = self._offsets(residuals)
        residuals, mean = residuals - self._members @ offsets, offsets.mean()
        weights = torch.cholesky_solve(residuals[:, None], self._factor)[:, 0]
        variance = (residuals @ weights / len(residuals)).clamp_min(1e-9)
        return _Fit(power, mean, mean_cost, gain, weights, variance)

    def _within_groups(self, values: Tensor) -> Tensor:
        """Return values less their group's mean."""
        within: Tensor = values - self._members @ (self._members.T @ values / self._members.sum(0))
        return within

    def _offsets(self, residuals: Tensor) -> Tensor:
        """Return each group's offset: the mean of one, or by generalized least squares, as groups saw other masks."""
        if self._members.shape[1] == 1:
            return residuals.mean(0, keepdim=True)
        explained = torch.cholesky_solve(self._members, self._factor)
        offsets: Tensor = torch.linalg.solve(self._members.T @ explained, explained.T @ residuals)
        return offsets

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


def _capped(losses: Tensor, groups: Tensor) -> Tensor:
    """Return the losses, cut at the ceiling of their group."""
    capped = losses.clone()
    for group in groups.unique():
        least = losses[groups == group].min()
        capped[groups == group] = losses[groups == group].clamp(
            max=(least if least.isfinite() else 0.0) + CEILING
        )
    return capped
