"""Effort: how many prompts each stage of a search is given, and how many rollouts, by name.

Nearly all of a search's cost is in proportion to the prompts that it runs. The more evaluations a policy has, the more
prompts its mask needs: there are more steps to place, and errors are smaller, so a search on few prompts finds a mask
that is best for these alone. So each candidate is rolled out on few, and the next ones on others. Coefficients need
seven prompts or more (docs/adr/0015-efforts.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import msgspec

from budc.option_names import option
from budc.schema.errors import UsageError
from budc.schema.predictor import MAX_TERMS


class PerBudget(NamedTuple):
    """A number that depends on the budget: budget -> number, on straight lines between those, and level beyond them."""

    numbers: Mapping[int, float]

    def exactly(self, nfe: int) -> float:
        """Return the number for a policy of `nfe` evaluations a branch."""
        budgets = sorted(self.numbers)
        for low, high in pairwise(budgets):
            if low < nfe < high:
                share = (nfe - low) / (high - low)
                return self.numbers[low] + share * (self.numbers[high] - self.numbers[low])
        return self.numbers[min(budgets, key=lambda budget: abs(budget - nfe))]

    def at(self, nfe: int) -> int:
        """Return the number, rounded."""
        return round(self.exactly(nfe))


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much a search is given. Where `fit` and `judge` are None: three quarters of the prompts, and the others.

    The search rolls out each candidate on `screen` of the `fit` prompts, on as many groups of them in turn as there are
    (`budc.compiler.selection.stages`). The best `finalists` race on all `fit` prompts, which coefficients are fitted
    to; the winner's are refined on `refine` of these. `judge` further prompts decide on an alignment or a number of
    steps, where one is asked for. `rollouts` is the share of its limit that `joint` takes. An alignment trains on
    `pairings` noises of each prompt for so many `epochs`, and is judged on `judged_pairings` of them. The report is
    measured on `report` held-out prompts, or on all.
    """

    screen: PerBudget
    fit: PerBudget | None = None
    judge: int | None = None
    finalists: int = 4
    rollouts: PerBudget = PerBudget({1: 1.0})
    refine: PerBudget = PerBudget({1: 0})
    pairings: int = 3
    epochs: PerBudget = PerBudget({8: 2, 10: 3, 15: 4})
    report: int | None = None

    def share(self, nfe: int) -> float:
        """Return the share of its limit that `joint` takes for a policy of `nfe` evaluations a branch."""
        return self.rollouts.exactly(nfe)

    def refined(self, nfe: int, steps: int, fit: int) -> int:
        """Return how many of `fit` prompts a policy of `nfe` of `steps` evaluations a branch is refined on; 0 for none.

        A policy that computes all steps has no coefficients.
        """
        prompts = min(self.refine.at(nfe), fit)
        return prompts if prompts >= LEAST_REFINED and nfe < steps else 0

    @property
    def judged_pairings(self) -> int:
        """The noises of each prompt that an alignment is judged on."""
        return min(self.pairings, JUDGED_PAIRINGS)


EFFORTS: Mapping[str, Effort] = {
    "fast": Effort(
        screen=PerBudget({6: 3, 8: 4, 10: 5, 14: 9}),
        fit=PerBudget({6: 7, 8: 8, 10: 10, 14: 18}),
        judge=2,
        finalists=2,
        rollouts=PerBudget({6: 0.56, 8: 0.525, 10: 0.42, 14: 0.5}),
        pairings=2,
        epochs=PerBudget({1: 2}),
        report=16,
    ),
    "balanced": Effort(
        screen=PerBudget({6: 5, 8: 5, 10: 8, 14: 10}),
        fit=PerBudget({6: 11, 8: 11, 10: 17, 14: 20}),
        judge=4,
        finalists=2,
        rollouts=PerBudget({10: 0.55, 14: 0.5}),
        refine=PerBudget({6: 10, 8: 8, 10: 11, 14: 12}),
        pairings=2,
        epochs=PerBudget({16: 2, 17: 3}),
        report=32,
    ),
    "thorough": Effort(
        screen=PerBudget({6: 6, 8: 8, 10: 8, 14: 12}),
        rollouts=PerBudget({10: 0.55, 14: 0.5}),
        refine=PerBudget({1: 16}),
    ),
}

DEFAULT_EFFORT = "thorough"

AFTER_PROXY = 0.35
"""The share of its limit that `joint` takes at the real size, with any effort, where it starts from a proxy's masks."""

PROXY_MASKS = 2
"""How many masks these are."""

JUDGED_PAIRINGS = 2
"""Noises of each prompt that an alignment is judged on after every epoch, with every effort."""

LEAST_REFINED = 8
"""Of fewer prompts no policy is refined: moves fit these alone (docs/adr/0021-refinement.md)."""

REFINED_AT_ONCE = 4
"""Prompts that a refinement measures together: what a kill loses, and what a worker is given."""

FINALISTS = 4
"""How many of the best candidates of a search are kept, with every effort."""


def effort(name: str) -> Effort:
    """Return an effort by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in EFFORTS:
        raise UsageError(
            f"{option('effort')}: no effort named {name!r}", remedy=f"use one of {', '.join(EFFORTS)}"
        )
    return EFFORTS[name]


def evaluations_of_refinement(nfe: int) -> int:
    """Return how many evaluations of each branch a refinement takes a prompt, where all branches have one mask.

    The policy is rolled out, and for each term of the rows after each computed step once more from there. That some
    computed steps are neighbours, with no row between them, is left out.
    """
    return nfe + sum(min(computed, MAX_TERMS) * (nfe - computed) for computed in range(1, nfe))


def epochs(nfe: int, given: Effort) -> int:
    """Return how many epochs a policy of `nfe` evaluations a branch is trained for."""
    return given.epochs.at(nfe)
