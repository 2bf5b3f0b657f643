"""Simulated annealing with measured temperatures, from the best of a few starts, then a short descent.

Losses have whatever scale the model and the objective give them, so temperatures that are constants are either a
random walk or a descent. Here some neighbours of the start are scored first, and of the differences to it

    hottest = their spread (root mean square),     coldest = the smallest that is not zero

the first accepts about any single move, the second nothing but the least of them; in between the temperature falls
geometrically. Every step but the first may move. The descent is `hillclimb`'s.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.hillclimb import Scored, descend, most_of_descent
from budc.compiler.search.moves import count, kicked, nudged, starts
from budc.compiler.search.space import Candidate, Proposals, Space

RANDOM_STARTS = 2
NEIGHBOURS = 12
MOVES = 200
NEAR = 3
NEAR_SHARE = 0.7
ROUNDS = 4


def temperatures(differences: Sequence[float]) -> tuple[float, float]:
    """Return (hottest, coldest) from the finite differences that single moves make; zeros where none makes any."""
    sizes = [abs(difference) for difference in differences if difference and math.isfinite(difference)]
    if not sizes:
        return 0.0, 0.0
    return math.sqrt(math.fsum(size**2 for size in sizes) / len(sizes)), min(sizes)


def accepts(rise: float, temperature: float, rng: random.Random) -> bool:
    """Say whether a move is made that raises the loss by so much (Metropolis)."""
    return rise <= 0 or (temperature > 0 and rng.random() < math.exp(-rise / temperature))


def _starts(space: Space, rng: random.Random) -> list[Candidate]:
    found = starts(space)
    for schedule in space.published_masks:
        found += starts(space, schedule)
    for payload in space.payloads:
        if payload in space.errors:
            found.append(Candidate.of(space.steps, shortest_path(space, payload), space.rule, payload))
    for _ in range(RANDOM_STARTS):
        steps = (0, *sorted(rng.sample(range(1, space.steps), space.nfe - 1)))
        found += starts(space, steps)
    return list(dict.fromkeys(found))


def candidates_of_anneal(space: Space) -> int:
    """Return how many candidates are scored at the most."""
    first = (2 + len(space.published_masks) + RANDOM_STARTS) * len(space.payloads)
    return min(count(space), first + NEIGHBOURS + MOVES + most_of_descent(space, ROUNDS))


def anneal(space: Space, rng: random.Random) -> Proposals:
    """Anneal one move at a time; the best candidate seen is what is descended from."""
    first = _starts(space, rng)
    best: Scored = min(zip(first, (yield first), strict=True), key=lambda scored: scored[1])
    around = [nudged(space, best[0], rng, NEAR) for _ in range(NEIGHBOURS)]
    losses = yield around
    hottest, coldest = temperatures([loss - best[1] for loss in losses])
    current = best
    best = min(best, *zip(around, losses, strict=True), key=lambda scored: scored[1])
    for move in range(MOVES):
        temperature = hottest * (coldest / hottest) ** (move / (MOVES - 1)) if hottest else 0.0
        near = rng.random() < NEAR_SHARE
        proposal = nudged(space, current[0], rng, NEAR) if near else kicked(space, current[0], rng)
        (loss,) = yield [proposal]
        if accepts(loss - current[1], temperature, rng):
            current = (proposal, loss)
        if loss < best[1]:
            best = (proposal, loss)
    best = yield from descend(space, best, ROUNDS)
    return best[0]
