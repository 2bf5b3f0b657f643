"""Search algorithms: each proposes candidates and observes their losses, and knows nothing of models.

An algorithm is a generator function in a module of its own: it yields a list of candidates, is sent the
list of their losses, and returns the best candidate that it has seen.

    walk = ALGORITHMS["paper"].walk(space, random.Random(seed))
    candidates = next(walk)
    candidates = walk.send([loss(c) for c in candidates])   # until StopIteration: its value is the winner

Scoring, memoising, journalling and progress belong to `budc.compiler.selection.study`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from budc.compiler.search.anneal import anneal, candidates_of_anneal
from budc.compiler.search.dp import candidates_of_dp, dp
from budc.compiler.search.exhaustive import exhaustive
from budc.compiler.search.hillclimb import candidates_of_hillclimb, hillclimb
from budc.compiler.search.joint import candidates_of_joint, joint
from budc.compiler.search.known import candidates_of_known, known
from budc.compiler.search.moves import count
from budc.compiler.search.nearby import candidates_of_nearby, nearby
from budc.compiler.search.paper import candidates_of_paper, paper
from budc.compiler.search.space import Candidate, Proposals, Space
from budc.compiler.search.uniform import uniform
from budc.schema.errors import UsageError

Objective = Literal["mean", "log-mean"]
"""How a candidate's errors, one a prompt, become its loss: their mean, or the mean of their logarithms, which the few
prompts that flip to another mode do not own."""


class Algorithm(NamedTuple):
    """A search, how many candidates it scores at the most (what progress is measured against), and on which loss."""

    walk: Callable[[Space, random.Random], Proposals]
    at_most: Callable[[Space], int]
    objective: Objective = "log-mean"
    arbitrated: bool = True
    """Whether finalists are arbitrated on prompts that the search does not see, or it is given all of them."""


ALGORITHMS: Mapping[str, Algorithm] = {
    "joint": Algorithm(joint, candidates_of_joint),
    "paper": Algorithm(paper, candidates_of_paper, "mean", arbitrated=False),
    "uniform": Algorithm(uniform, lambda _: 1, "mean", arbitrated=False),
    "exhaustive": Algorithm(exhaustive, count),
    "anneal": Algorithm(anneal, candidates_of_anneal),
    "hillclimb": Algorithm(hillclimb, candidates_of_hillclimb),
    "dp": Algorithm(dp, candidates_of_dp),
    "known": Algorithm(known, candidates_of_known),
    "nearby": Algorithm(nearby, candidates_of_nearby),
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


__all__ = ["ALGORITHMS", "Algorithm", "Candidate", "Objective", "Space", "Walk", "algorithm"]
