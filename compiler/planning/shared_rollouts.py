"""What searches of several budgets share: a prefix of a mask is rolled out once, for whichever budget it was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping

from budc.compiler.planning.dry_run import Given


def unshared(given: Given, computed: float, earlier: Mapping[int, float]) -> float:
    """Return the share of a search's computed steps that searches of other budgets have not computed before it.

    Each is thought to roll out prefixes of every length alike, and of all that there are of a length any with the same
    chance.

    Args:
        given: what the search is given.
        computed: the steps that it computes for one sample and branch, where it is alone.
        earlier: budget of each search before it -> the steps that this one computed.
    """
    own = _rolled_out(given, given.nfe, computed)
    new = list(own)
    for nfe, count in earlier.items():
        others = _rolled_out(given, nfe, count)
        new = [
            prefixes * (1 - others[length] / _prefixes(given, length)) if length < nfe else prefixes
            for length, prefixes in enumerate(new)
        ]
    return sum(new) / sum(own)


def _prefixes(given: Given, length: int) -> int:
    """Return how many prefixes there are with so many computed steps after the first."""
    return len(given.payloads) * math.comb(given.steps - 1, length)


def _rolled_out(given: Given, nfe: int, computed: float) -> list[float]:
    """Return how many prefixes of each length a search of so many computed steps rolls out."""
    counts: list[float] = []
    for length in range(nfe):
        rest = computed - sum(counts)
        counts.append(min(_prefixes(given, length), rest / (nfe - length)))
    return counts
