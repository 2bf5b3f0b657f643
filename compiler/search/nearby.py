"""Nearby: the schedules that the space knows, then the most promising masks near the best of them.

What was found elsewhere, on another size of the model or by other authors, is nearly right. A few rollouts, taken where
the surrogate of `joint` expects the most of them, make up much of the rest.
"""

from __future__ import annotations

import random
from collections.abc import Generator

from budc.compiler.search.joint import promising
from budc.compiler.search.known import candidates_of_known, published
from budc.compiler.search.moves import candidate, taken
from budc.compiler.search.space import Candidate, Space

ROLLOUTS = 8
"""Masks tried beside the schedules. Most share half of their rollout with one before."""


def candidates_of_nearby(space: Space) -> int:
    """Return how many candidates are scored."""
    return candidates_of_known(space) + ROLLOUTS


def nearby(space: Space, rng: random.Random) -> Generator[list[Candidate], list[float], Candidate]:
    """Score the space's schedules with every payload, then masks near the best, with its payload.

    Raises:
        UsageError: there is no schedule.
    """
    first = published(space, "nearby")
    losses = yield first
    payload = first[losses.index(min(losses))].payload
    known = {
        taken(space, one): loss for one, loss in zip(first, losses, strict=True) if one.payload == payload
    }
    for _ in range(ROLLOUTS):
        slots = promising(space, payload, known)
        if slots is None:
            break
        (known[slots],) = yield [candidate(space, slots, payload)]
    best = min(known.items(), key=lambda entry: entry[1])
    return candidate(space, best[0], payload)
