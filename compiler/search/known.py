"""Known schedules: those that others have published for the model, each rolled out once.

They are data, not a search: `budc.policies.published_masks` reads them and scales them to the steps and the budget.
"""

from __future__ import annotations

import random

from budc.compiler.search.moves import starts
from budc.compiler.search.space import Candidate, Proposals, Space
from budc.policies.published_masks import published_models
from budc.schema.errors import UsageError


def candidates_of_known(space: Space) -> int:
    """Return how many candidates are scored: every schedule with every payload."""
    return len(space.published_masks) * len(space.payloads)


def published(space: Space, search: str) -> list[Candidate]:
    """Return the space's schedules with every payload, one mask for all branches.

    Raises:
        UsageError: there is none.
    """
    if not space.published_masks:
        raise UsageError(
            f"--search {search}: no schedule is published for this model",
            remedy=f"there are some for {', '.join(published_models())}; otherwise use --search joint",
        )
    return [start for schedule in space.published_masks for start in starts(space, schedule)]


def known(space: Space, rng: random.Random) -> Proposals:
    """Score the space's schedules and return the best.

    Raises:
        UsageError: there is none.
    """
    found = published(space, "known")
    losses = yield found
    return found[losses.index(min(losses))]
