"""Search algorithms: each proposes candidates and observes their losses, and knows nothing of models.

An algorithm is a generator function in a module of its own: it yields a list of candidates, is sent the
list of their losses, and returns the best candidate that it has seen.

    walk = ALGORITHMS["paper"].walk(space, random.Random(seed))
    candidates = next(walk)
    candidates = walk.send([loss(c) for c in candidates])   # until StopIteration: its value is the winner

Scoring, memoising, journalling and progress belong to `budc.compiler.study`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from typing import NamedTuple

from budc.compiler.search.paper import candidates_of_paper, paper
from budc.compiler.search.space import Candidate, Space
from budc.compiler.search.uniform import uniform
from budc.schema.errors import UsageError

Walk = Generator[list[Candidate], list[float], Candidate]


class Algorithm(NamedTuple):
    """A search, and how many candidates it scores at the most: what progress is measured against."""

    walk: Callable[[Space, random.Random], Walk]
    at_most: Callable[[Space], int]


ALGORITHMS: Mapping[str, Algorithm] = {
    "paper": Algorithm(paper, candidates_of_paper),
    "uniform": Algorithm(uniform, lambda _: 1),
}


def algorithm(name: str) -> Algorithm:
    """Return an algorithm by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in ALGORITHMS:
        raise UsageError(
            f"--search: no algorithm named {name!r}", remedy=f"use one of {', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[name]


__all__ = ["ALGORITHMS", "Algorithm", "Candidate", "Space", "Walk", "algorithm"]
