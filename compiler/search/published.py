"""`--search known`: the masks that others have published for the model, each rolled out once.

`budc.policies.published_masks` reads them and scales them to the number of steps and the budget.
"""

from __future__ import annotations

import random

from budc.compiler.search.moves import with_every_payload
from budc.compiler.search.space import Candidate, Proposals, Space
from budc.option_names import option
from budc.policies.published_masks import published_models
from budc.schema.errors import UsageError


def candidates_of_published(space: Space) -> int:
    """Return how many candidates are scored: every published mask with every payload."""
    return len(space.published_masks) * len(space.payloads)


def published_candidates(space: Space, search: str) -> list[Candidate]:
    """Return the space's published masks with every payload, one mask for all branches.

    Raises:
        UsageError: there is none; `search` is the algorithm that asked for one.
    """
    if not space.published_masks:
        raise UsageError(
            f"{option('search', search)}: no mask is published for this model",
            remedy=f"there are some for {', '.join(published_models())}; otherwise use "
            f"{option('search', 'joint')}",
        )
    return [start for steps in space.published_masks for start in with_every_payload(space, steps)]


def published(space: Space, rng: random.Random) -> Proposals:
    """Score the space's published masks and return the best.

    Raises:
        UsageError: there is none.
    """
    candidates = published_candidates(space, "known")
    losses = yield candidates
    return candidates[losses.index(min(losses))]
