"""Surrogate: how good a mask promises to be, by the masks that were rolled out.

    loss ≈ mean + gain · log cost + g        g: a Gaussian process, covariance ∝ exp(-distance / length)

The cost is the full run's reuse error along the mask, from Gram matrices (`fitting/gram.py`), as dynamic programming
adds it up. The gain, how much of it arrives in the final latents, is calibrated on the rollouts, and g learns from
them what a sum leaves out: errors that meet, amplify or cancel. The distance of two masks is by how many steps computed
steps have to move to make one of the other, branches on average.

What is worth rolling out next is what has the largest expected improvement on the least loss known (Jones, Schonlau,
Welch: Efficient global optimization of expensive black-box functions, 1998, equation 15).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from budc.compiler.search.moves import Slots, lanes
from budc.compiler.search.space import Space
from budc.schema.policy import Payload

LENGTH = 0.25
"""Distance over which masks tell of each other, as a share of the steps."""

CEILING = 1.5
"""Losses above the least by more than this (a log) are all as bad: how bad a bad mask is says nothing of good ones."""

NUGGET = 1e-4
"""Variance of a rollout's loss for given mask, relative to the process: next to none."""


class Surrogate:
    """Promises of the masks of one payload; `known` are losses of slots (`budc.compiler.search.moves`)."""

    def __init__(self, space: Space, payload: Payload, known: Mapping[Slots, float]) -> None:
        self._space, self._lanes = space, lanes(space)
        errors = space.errors.get(payload)
        self._errors = None if errors is None else torch.tensor(errors, dtype=torch.float64)
        least = min(known.values())
        self._least = least if math.isfinite(least) else 0.0
        losses = torch.tensor(list(known.values()), dtype=torch.float64).clamp(max=self._least + CEILING)
        self._known = torch.tensor(list(known))
        costs = self._costs(self._known)
        self._centre, self._mean = costs.mean(), losses.mean()
        away = costs - self._centre
        self._gain = ((away @ (losses - self._mean)) / (away @ away + 1e-3)).clamp_min(0)
        left = losses - self._mean - self._gain * away
        covariance = self._covariance(self._known)
        covariance.diagonal().add_(NUGGET)
        self._factor = torch.linalg.cholesky(covariance)
        self._weights = torch.cholesky_solve(left[:, None], self._factor)[:, 0]
        self._variance = (left @ self._weights / len(left)).clamp_min(1e-9)

    def improvement(self, masks: Sequence[Slots]) -> list[float]:
        """Return by how much each mask is expected to fall below the least loss."""
        slots = torch.tensor(list(masks))
        covariance = self._covariance(slots)
        loss = self._mean + self._gain * (self._costs(slots) - self._centre) + covariance @ self._weights
        explained = torch.linalg.solve_triangular(self._factor, covariance.T, upper=False).square().sum(0)
        deviation = (self._variance * (1 - explained).clamp_min(1e-9)).sqrt()
        below = (self._least - loss) / deviation
        density = (-below.square() / 2).exp() / math.sqrt(2 * math.pi)
        promise = deviation * (below * torch.special.ndtr(below) + density)
        found: list[float] = promise.tolist()
        return found

    def _covariance(self, slots: Tensor) -> Tensor:
        moved = (slots[:, None] - self._known[None]).abs().sum(-1).double() / self._lanes**2
        return (-moved / (LENGTH * self._space.steps)).exp()

    def _costs(self, slots: Tensor) -> Tensor:
        """Return the log of the reuse errors that masks add up to, (n,)."""
        total = torch.zeros(len(slots), dtype=torch.float64)
        if self._errors is None:
            return total
        steps = torch.arange(self._space.steps)
        computed = torch.zeros(len(slots), len(steps) * self._lanes, dtype=torch.bool).scatter_(
            1, slots, True
        )
        for mask in computed.unflatten(1, (-1, self._lanes)).unbind(-1):
            last = torch.where(mask, steps, 0).cummax(1).values
            earlier = torch.where(mask, last.roll(1, 1), 0)
            earlier[:, 0] = 0
            previous = earlier.gather(1, last)
            total += torch.where(mask, 0.0, self._errors[previous, last, steps]).sum(1)
        return total.clamp_min(1e-12).log()
