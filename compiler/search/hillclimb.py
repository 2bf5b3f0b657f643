"""Hill climbing from evenly spread steps, with moves of 3, then 2, then 1 steps, and restarts.

A round goes through the computed steps, the latest first, because a late move shares most of its rollout with the mask
that it changes. All moves of one step by one distance are scored together, and the best is taken at once if it
improves. A round ends with the other payload. A round that improves nothing has reached a local minimum. Then two
random computed steps are moved, and the descent starts again from there.
"""

from __future__ import annotations

import random
from collections.abc import Generator

from budc.compiler.search.moves import (
    candidate_count,
    candidate_of,
    mask_count,
    movable_slots,
    perturbed,
    relocations,
    slots_of,
    with_every_payload,
    with_other_payloads,
)
from budc.compiler.search.space import Candidate, Proposals, Space

DISTANCES = (3, 2, 1, 0)
"""In steps; 0 moves a computed step to another branch, where branches may differ."""

ROUNDS = 12
RESTARTS = 2
RESTART_MOVES = 2

CandidateLoss = tuple[Candidate, float]


def descend(
    space: Space, best: CandidateLoss, rounds: int
) -> Generator[list[Candidate], list[float], CandidateLoss]:
    """Descend from a scored candidate to a local minimum, in at most so many rounds."""
    for _ in range(rounds):
        before = best
        for distance in DISTANCES:
            for slot in movable_slots(space, slots_of(space, best[0])):
                if neighbours := _neighbours(space, best[0], slot, distance):
                    best = min(best, *zip(neighbours, (yield neighbours), strict=True), key=_loss)
        if switched := with_other_payloads(space, best[0]):
            best = min(best, *zip(switched, (yield switched), strict=True), key=_loss)
        if best == before:
            break
    return best


def candidates_of_descent(space: Space, rounds: int) -> int:
    """Return how many candidates a descent scores at most."""
    count = mask_count(space)
    moves = (space.nfe - len(space.fixed)) * count * (2 * count * (len(DISTANCES) - 1) + count - 1)
    return rounds * (moves + len(space.payloads) - 1)


def candidates_of_hillclimb(space: Space) -> int:
    """Return how many candidates are scored at most; usually far fewer rounds improve."""
    descents = (1 + RESTARTS) * (1 + candidates_of_descent(space, ROUNDS))
    return min(candidate_count(space), len(space.payloads) - 1 + descents)


def hillclimb(space: Space, rng: random.Random) -> Proposals:
    """Descend from evenly spread steps with the better payload, then from the perturbed minimum, a few times."""
    starts = with_every_payload(space)
    best = min(zip(starts, (yield starts), strict=True), key=_loss)
    best = yield from descend(space, best, ROUNDS)
    for _ in range(RESTARTS):
        start = perturbed(space, best[0], rng, RESTART_MOVES)
        (loss,) = yield [start]
        minimum = yield from descend(space, (start, loss), ROUNDS)
        best = min(best, minimum, key=_loss)
    return best[0]


def _neighbours(space: Space, candidate: Candidate, slot: int, distance: int) -> list[Candidate]:
    moved = relocations(space, slots_of(space, candidate), slot, (distance,))
    return [candidate_of(space, slots, candidate.payload) for slots in moved]


def _loss(scored: CandidateLoss) -> float:
    return scored[1]
