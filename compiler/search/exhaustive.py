"""Exhaustive: every candidate of a small space. The other searches are measured against it."""

from __future__ import annotations

import random
from itertools import islice

from budc.compiler.search.moves import all_candidates, candidate_count, prefix_count
from budc.compiler.search.space import Proposals, Space
from budc.option_names import option
from budc.schema.errors import UsageError

LIMIT = 100_000
BATCH = 64


def evaluations_of_exhaustive(space: Space) -> int:
    """Return how many steps the rollouts compute. Raises UsageError: there are too many candidates."""
    _check_size(space)
    return prefix_count(space)


def exhaustive(space: Space, rng: random.Random) -> Proposals:
    """Score every candidate and return the best; of equal ones the first.

    Raises:
        UsageError: there are more than `LIMIT`.
    """
    _check_size(space)
    candidates = all_candidates(space)
    batch = list(islice(candidates, BATCH))
    best, lowest = batch[0], float("inf")
    while batch:
        losses = yield batch
        for candidate, loss in zip(batch, losses, strict=True):
            if loss < lowest:
                best, lowest = candidate, loss
        batch = list(islice(candidates, BATCH))
    return best


def _check_size(space: Space) -> None:
    total = candidate_count(space)
    if total > LIMIT:
        raise UsageError(
            f"{option('search', 'exhaustive')}: {space.nfe} of {space.steps} steps are {total:,} candidates, "
            f"at most {LIMIT:,} are tried",
            remedy=f"use {option('search', 'joint')}, or fewer steps",
        )
