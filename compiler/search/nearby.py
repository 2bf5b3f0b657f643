"""Nearby: the published masks, then the most promising masks near the best of them.

A mask that was found on another size of the model, or by other authors, is nearly right. A few more rollouts, chosen
by the surrogate of `joint`, make up much of the difference.
"""

from __future__ import annotations

import random

from budc.compiler.search.moves import Trial, candidate_of, slots_of
from budc.compiler.search.payload_penalty import payload_penalty
from budc.compiler.search.promising import most_promising
from budc.compiler.search.published import candidates_of_published, published_candidates
from budc.compiler.search.space import Proposals, Space

ROLLOUTS = 8
"""Masks tried beside the published ones. Most share half of their rollout with an earlier one."""


def candidates_of_nearby(space: Space) -> int:
    """Return how many candidates are scored at most."""
    return candidates_of_published(space) + ROLLOUTS


def evaluations_of_nearby(space: Space) -> int:
    """Return about how many steps the rollouts compute. Raises UsageError: no mask is published."""
    return space.nfe * (len(published_candidates(space, "nearby")) + ROLLOUTS // 2)


def nearby(space: Space, rng: random.Random) -> Proposals:
    """Score the published masks with every payload, then masks near the best one, with its payload.

    Raises:
        UsageError: no mask is published.
    """
    candidates = published_candidates(space, "nearby")
    losses = yield candidates
    judged = [
        loss + payload_penalty(c.payload, space.prompts) for c, loss in zip(candidates, losses, strict=True)
    ]
    payload = candidates[judged.index(min(judged))].payload
    scored = {
        Trial(slots_of(space, candidate)): loss
        for candidate, loss in zip(candidates, losses, strict=True)
        if candidate.payload == payload
    }
    for _ in range(ROLLOUTS):
        slots = most_promising(space, payload, scored)
        if slots is None:
            break
        (scored[Trial(slots)],) = yield [candidate_of(space, slots, payload)]
    best = min(scored, key=scored.__getitem__)
    return candidate_of(space, best.slots, payload)
