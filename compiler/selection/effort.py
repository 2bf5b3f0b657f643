"""Effort: how many prompts each stage of a search is given, and how many rollouts, by name.

Nearly all of a search's cost is in proportion to the prompts that it runs. With the same forwards, few prompts and a
search that goes on gave better masks than more prompts and one that stops early: `joint` leaves its starting masks
only after some ten rollouts. Coefficients need six prompts or more (docs/adr/0015-efforts.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from budc.option_names import option
from budc.schema.errors import UsageError


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much a search is given. Where prompts are None: three quarters of all to screen and fit, the others to judge.

    The search rolls out its candidates on `screen` prompts. The best `finalists` race on `fit` prompts, these among
    them, which coefficients are fitted to. `judge` further prompts decide on an alignment or a number of steps, where
    one is asked for. `rollouts` is the share of its limit that `joint` takes. An alignment trains on `pairings` noises
    of each prompt; `epochs` are those for each evaluation of the budget, and the fewest. The report is measured on
    `report` held-out prompts, or on all.
    """

    screen: int | None = None
    fit: int | None = None
    judge: int | None = None
    finalists: int = 4
    rollouts: float = 1.0
    pairings: int = 3
    epochs: tuple[float, int] = (0.4, 3)
    report: int | None = None


EFFORTS: Mapping[str, Effort] = {
    "fast": Effort(
        screen=4, fit=6, judge=2, finalists=2, rollouts=0.7, pairings=2, epochs=(0.0, 2), report=16
    ),
    "balanced": Effort(
        screen=7, fit=10, judge=4, finalists=2, rollouts=0.9, pairings=2, epochs=(0.15, 2), report=32
    ),
    "thorough": Effort(),
}

DEFAULT_EFFORT = "thorough"

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


def epochs(nfe: int, given: Effort) -> int:
    """Return how many epochs a policy of `nfe` evaluations a branch is trained for."""
    per_evaluation, fewest = given.epochs
    return max(fewest, round(per_evaluation * nfe))
