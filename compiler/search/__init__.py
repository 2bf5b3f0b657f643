"""Search algorithms: they propose candidates, observe their losses and know nothing of models.

An algorithm is a generator function in a module of its own. It yields a list of candidates, is sent the list of their
losses, and returns the best candidate that it has seen.

    proposals = ALGORITHMS["paper"].propose(space, random.Random(seed))
    candidates = next(proposals)
    candidates = proposals.send([loss(c) for c in candidates])   # until StopIteration: its value is the winner

`budc.compiler.selection.study` scores the candidates, keeps the journal and shows progress. Importing this package
loads no numerical library.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from budc.compiler.search.anneal import anneal, candidates_of_anneal
from budc.compiler.search.dp import candidates_of_dp, dp, evaluations_of_dp
from budc.compiler.search.exhaustive import evaluations_of_exhaustive, exhaustive
from budc.compiler.search.given import GIVEN, GIVEN_FITTED, given, given_fitted
from budc.compiler.search.hillclimb import candidates_of_hillclimb, hillclimb
from budc.compiler.search.joint import candidates_of_joint, evaluations_of_joint, joint
from budc.compiler.search.moves import candidate_count
from budc.compiler.search.nearby import candidates_of_nearby, evaluations_of_nearby, nearby
from budc.compiler.search.paper import candidates_of_paper, paper
from budc.compiler.search.published import candidates_of_published, published
from budc.compiler.search.space import Candidate, Proposals, Space
from budc.compiler.search.uniform import uniform
from budc.option_names import option
from budc.schema.errors import UsageError

Objective = Literal["mean", "log-mean"]
"""How a candidate's errors, one for each prompt, become its loss: their mean, or the mean of their logarithms. The
latter is not dominated by the few prompts whose sample becomes another picture."""


class Algorithm(NamedTuple):
    """A search, its objective, and the most candidates that it scores, for the progress bar."""

    propose: Callable[[Space, random.Random], Proposals]
    max_candidates: Callable[[Space], int]
    objective: Objective = "log-mean"
    arbitrated: bool = True
    """Whether its finalists are arbitrated on prompts that it does not see; if not, it is given all prompts."""
    grouped: bool = False
    """Whether it scores candidates on several groups of prompts in turn; if not, each on all that are fitted."""
    evaluations: Callable[[Space], int] | None = None
    """About how many steps its rollouts compute, common prefixes counted once; None where losses decide."""


ALGORITHMS: Mapping[str, Algorithm] = {
    "joint": Algorithm(joint, candidates_of_joint, grouped=True, evaluations=evaluations_of_joint),
    "paper": Algorithm(paper, candidates_of_paper, "mean", arbitrated=False),
    "uniform": Algorithm(uniform, lambda _: 1, "mean", arbitrated=False),
    "exhaustive": Algorithm(exhaustive, candidate_count, evaluations=evaluations_of_exhaustive),
    "anneal": Algorithm(anneal, candidates_of_anneal),
    "hillclimb": Algorithm(hillclimb, candidates_of_hillclimb),
    "dp": Algorithm(dp, candidates_of_dp, evaluations=evaluations_of_dp),
    "known": Algorithm(published, candidates_of_published),
    "nearby": Algorithm(nearby, candidates_of_nearby, evaluations=evaluations_of_nearby),
    GIVEN: Algorithm(given, lambda _: 1),
    GIVEN_FITTED: Algorithm(given_fitted, lambda _: 1),
}


def algorithm(name: str) -> Algorithm:
    """Return an algorithm by name.

    Raises:
        UsageError: there is no such algorithm.
    """
    if name not in ALGORITHMS:
        raise UsageError(
            f"{option('search')}: no algorithm named {name!r}", remedy=f"use one of {', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[name]


__all__ = [
    "ALGORITHMS",
    "GIVEN",
    "GIVEN_FITTED",
    "Algorithm",
    "Candidate",
    "Objective",
    "Proposals",
    "Space",
    "algorithm",
]
