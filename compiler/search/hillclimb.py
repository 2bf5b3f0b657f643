"""Hill climbing: first-improvement descent from evenly spread steps, with moves of 3, then 2, then 1 steps.

A round goes through the computed steps, the latest first, because a late move shares most of its rollout with what
it came from. All moves of one step by one size are scored together, and the best is taken if it improves. A round
ends with the other payload. When a round brings nothing, no move of the list improves: a local minimum. It is left by
a random kick of two computed steps, and the descent starts again.
"""

from __future__ import annotations

import random
from collections.abc import Generator

from budc.compiler.search.moves import count, kicked, lanes, movable, relocations, starts, switches
from budc.compiler.search.space import Candidate, Proposals, Space

SIZES = (3, 2, 1, 0)
"""In steps; 0 hands a step to another branch, where branches may differ."""

ROUNDS = 12
RESTARTS = 2
KICKS = 2

Scored = tuple[Candidate, float]


def descend(space: Space, best: Scored, rounds: int) -> Generator[list[Candidate], list[float], Scored]:
    """Descend from a scored candidate to a local minimum, for so many rounds at the most."""
    for _ in range(rounds):
        before = best
        for size in SIZES:
            for slot in movable(space, best[0]):
                if around := relocations(space, best[0], slot, (size,)):
                    best = min(best, *zip(around, (yield around), strict=True), key=_loss)
        if around := switches(space, best[0]):
            best = min(best, *zip(around, (yield around), strict=True), key=_loss)
        if best == before:
            break
    return best


def most_of_descent(space: Space, rounds: int) -> int:
    """Return how many candidates a descent scores at the most."""
    width = lanes(space)
    moves = (space.nfe - len(space.fixed)) * width * (2 * width * (len(SIZES) - 1) + width - 1)
    return rounds * (moves + len(space.payloads) - 1)


def candidates_of_hillclimb(space: Space) -> int:
    """Return how many candidates are scored at the most; usually far fewer rounds improve."""
    descents = (1 + RESTARTS) * (1 + most_of_descent(space, ROUNDS))
    return min(count(space), len(space.payloads) - 1 + descents)


def hillclimb(space: Space, rng: random.Random) -> Proposals:
    """Descend from the better payload of evenly spread steps, then from kicked local minima."""
    first = starts(space)
    best = min(zip(first, (yield first), strict=True), key=_loss)
    best = yield from descend(space, best, ROUNDS)
    for _ in range(RESTARTS):
        start = kicked(space, best[0], rng, KICKS)
        (loss,) = yield [start]
        found = yield from descend(space, (start, loss), ROUNDS)
        best = min(best, found, key=_loss)
    return best[0]


def _loss(scored: Scored) -> float:
    return scored[1]
