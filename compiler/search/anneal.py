"""Simulated annealing with measured temperatures, from the best of a few starts, then a short descent.

The scale of the losses depends on the model and the objective, so constant temperatures would make the search a random
walk or a plain descent. Here some neighbours of the start are scored first, and the differences to its loss give

    hottest = their root mean square,     coldest = the smallest that is not zero.

The hottest accepts nearly any single move, the coldest only the least harmful ones; between them the temperature
falls geometrically. Every step but the fixed ones may move. The descent is that of `hillclimb`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.hillclimb import CandidateLoss, candidates_of_descent, descend
from budc.compiler.search.moves import candidate_count, perturbed, random_neighbour, with_every_payload
from budc.compiler.search.space import Candidate, Proposals, Space

RANDOM_STARTS = 2
NEIGHBOURS = 12
MOVES = 200
NEAR = 3
NEAR_SHARE = 0.7
ROUNDS = 4


def temperatures(differences: Sequence[float]) -> tuple[float, float]:
    """Return (hottest, coldest) of the finite loss differences of single moves; zeros where there is none."""
    sizes = [abs(difference) for difference in differences if difference and math.isfinite(difference)]
    if not sizes:
        return 0.0, 0.0
    return math.sqrt(math.fsum(size**2 for size in sizes) / len(sizes)), min(sizes)


def accepts(rise: float, temperature: float, rng: random.Random) -> bool:
    """Say whether to accept a move that raises the loss by so much (Metropolis)."""
    return rise <= 0 or (temperature > 0 and rng.random() < math.exp(-rise / temperature))


def _starts(space: Space, rng: random.Random) -> list[Candidate]:
    candidates = with_every_payload(space)
    for steps in space.published_masks:
        candidates += with_every_payload(space, steps)
    for payload in space.payloads:
        if payload in space.errors:
            candidates.append(Candidate.of(space.steps, shortest_path(space, payload), space.rule, payload))
    for _ in range(RANDOM_STARTS):
        steps = (0, *sorted(rng.sample(range(1, space.steps), space.nfe - 1)))
        candidates += with_every_payload(space, steps)
    return list(dict.fromkeys(candidates))


def candidates_of_anneal(space: Space) -> int:
    """Return how many candidates are scored at most."""
    starts = (2 + len(space.published_masks) + RANDOM_STARTS) * len(space.payloads)
    return min(candidate_count(space), starts + NEIGHBOURS + MOVES + candidates_of_descent(space, ROUNDS))


def anneal(space: Space, rng: random.Random) -> Proposals:
    """Anneal one move at a time, then descend from the best candidate seen."""
    starts = _starts(space, rng)
    best: CandidateLoss = min(zip(starts, (yield starts), strict=True), key=lambda scored: scored[1])
    neighbours = [random_neighbour(space, best[0], rng, NEAR) for _ in range(NEIGHBOURS)]
    losses = yield neighbours
    hottest, coldest = temperatures([loss - best[1] for loss in losses])
    current = best
    best = min(best, *zip(neighbours, losses, strict=True), key=lambda scored: scored[1])
    for move in range(MOVES):
        temperature = hottest * (coldest / hottest) ** (move / (MOVES - 1)) if hottest else 0.0
        near = rng.random() < NEAR_SHARE
        proposal = (
            random_neighbour(space, current[0], rng, NEAR) if near else perturbed(space, current[0], rng)
        )
        (loss,) = yield [proposal]
        if accepts(loss - current[1], temperature, rng):
            current = (proposal, loss)
        if loss < best[1]:
            best = (proposal, loss)
    best = yield from descend(space, best, ROUNDS)
    return best[0]
