"""The default search: mask and predictor together, descending from a few good starts.

Every candidate's coefficients are fitted while it is rolled out (`budc.compiler.tracking`), so a loss is that of
the mask with its best predictor, and both are searched at once. Starts: evenly spread steps, the same stretched to
the end of the schedule, dynamic programming's path and published schedules. The best start is tried with the
other payload, and the better payload is kept. Then sweeps of single moves by 3, 2 and 1 steps in random order, each
taken as soon as it helps. A local optimum is left by a random kick, until the allowance is spent.

Where branches may differ, a move relocates a step of one branch, or gives an evaluation to another one: the total
of branch evaluations stays.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.space import Candidate, Payload, Space
from budc.schema.mask import StepMask

ALLOWANCE = 3.0, 18.0, 28.0
"""What may be spent, in rollouts of one candidate from its first step to its last: for each evaluation of the budget,
and the least and the most of it. A budget of few evaluations has fewer moves to try."""

SIZES = (3, 2, 1)
GIFTS = 0.2
"""Share of moves that give an evaluation to another branch, where branches may differ."""

Masks = tuple[tuple[int, ...], ...]
Move = tuple[int, int, int]


class Spending:
    """Counts what candidates cost when those that begin alike share it, in rollouts."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._seen: set[tuple[object, ...]] = set()
        self.rollouts = 0.0

    def add(self, masks: Masks, payload: str) -> None:
        """Count a candidate."""
        events = sorted((step, branch) for branch, steps in enumerate(masks) for step in steps)
        for index, (step, _) in enumerate(events):
            prefix = (payload, *(event for event in events if event[0] <= step), index)
            if prefix not in self._seen:
                self._seen.add(prefix)
                self.rollouts += 1 / len(events)


def allowance(nfe: int) -> float:
    """Return the rollouts that a search for a policy of `nfe` evaluations a branch may spend."""
    each, least, most = ALLOWANCE
    return min(most, max(least, each * nfe))


def candidates_of_joint(space: Space) -> int:
    """Return about how many candidates are scored; the allowance decides."""
    return int(3 * allowance(space.nfe))


def stretched(steps: int, nfe: int) -> tuple[int, ...]:
    """Return evenly spread steps that reach to the last but one: the end of a schedule needs fresh ones."""
    last = max(nfe - 1, steps - 2)
    return tuple(round(last * index / max(1, nfe - 1)) for index in range(nfe))


def starts(space: Space) -> list[tuple[int, ...]]:
    """Return the masks to start from, each once, as compute steps."""
    found = [StepMask.uniform(space.steps, space.nfe).compute_steps, stretched(space.steps, space.nfe)]
    if "velocity" in space.errors:
        found.append(shortest_path(space, "velocity"))
    found.extend(space.schedules)
    return list(dict.fromkeys(space.through(steps) for steps in found))


def relocations(space: Space, masks: Masks, rng: random.Random) -> list[Move]:
    """List (branch, step, direction) for every step that may move, in random order."""
    found = [
        (branch, step, direction)
        for branch, steps in enumerate(masks)
        for step in steps
        if step not in space.fixed
        for direction in (1, -1)
    ]
    rng.shuffle(found)
    return found


def relocated(space: Space, masks: Masks, move: Move, size: int) -> Masks | None:
    """Return the masks after a move, or None where it is no longer possible."""
    branch, step, direction = move
    target = step + size * direction
    if step not in masks[branch] or target in masks[branch] or not 0 < target < space.steps:
        return None
    return _replaced(masks, branch, {*masks[branch], target} - {step})


def given(space: Space, masks: Masks, rng: random.Random) -> Masks | None:
    """Return the masks after one evaluation has gone from a random branch to a random step of another."""
    giver = rng.randrange(len(masks))
    taker = (giver + rng.randrange(1, len(masks))) % len(masks)
    movable = [step for step in masks[giver] if step not in space.fixed]
    free = [step for step in range(1, space.steps) if step not in masks[taker]]
    if not movable or not free:
        return None
    less = _replaced(masks, giver, set(masks[giver]) - {rng.choice(movable)})
    return _replaced(less, taker, {*less[taker], rng.choice(free)})


def joint(space: Space, rng: random.Random) -> Generator[list[Candidate], list[float], Candidate]:
    """Search masks, payload and coefficients; one start, or one move, at a time."""
    spending = Spending(space)
    losses: dict[tuple[Masks, Payload], float] = {}

    def scored(masks: Masks, payload: Payload) -> Generator[list[Candidate], list[float], float]:
        if (masks, payload) not in losses:
            spending.add(masks, payload)
            (losses[masks, payload],) = yield [_candidate(space, masks, payload)]
        return losses[masks, payload]

    width = len(space.branches) if space.separate else 1
    best: tuple[Masks, Payload] = ((starts(space)[0],) * width, "velocity")
    lowest = yield from scored(*best)
    for start in starts(space)[1:]:
        loss = yield from scored((start,) * width, "velocity")
        if loss < lowest:
            best, lowest = ((start,) * width, "velocity"), loss
    loss = yield from scored(best[0], "trunk-residual")
    if loss < lowest:
        best, lowest = (best[0], "trunk-residual"), loss
    payload, most = best[1], allowance(space.nfe)
    current, here = best[0], lowest
    while spending.rollouts < most and sum(of == payload for _, of in losses) < _all(space):
        improved = False
        for size in SIZES:
            for move in relocations(space, current, rng):
                masks = relocated(space, current, move, size)
                if width > 1 and rng.random() < GIFTS:
                    masks = given(space, current, rng)
                if masks is None or spending.rollouts >= most:
                    continue
                loss = yield from scored(masks, payload)
                if loss < here:
                    current, here, improved = masks, loss, True
        if here < lowest:
            best, lowest = (current, payload), here
        if not improved:
            current = kicked(space, best[0], rng)
            here = yield from scored(current, payload)
    return _candidate(space, *best)


def kicked(space: Space, masks: Masks, rng: random.Random) -> Masks:
    """Return the masks after two random relocations."""
    for _ in range(2):
        branch = rng.randrange(len(masks))
        movable = [step for step in masks[branch] if step not in space.fixed]
        free = [step for step in range(1, space.steps) if step not in masks[branch]]
        if movable and free:
            chosen, target = rng.choice(movable), rng.choice(free)
            masks = _replaced(masks, branch, {*masks[branch], target} - {chosen})
    return masks


def _candidate(space: Space, masks: Masks, payload: Payload) -> Candidate:
    return Candidate(
        tuple(StepMask.from_compute_steps(space.steps, steps) for steps in masks), "tracked", payload
    )


def _replaced(masks: Masks, branch: int, steps: Sequence[int] | set[int]) -> Masks:
    return (*masks[:branch], tuple(sorted(steps)), *masks[branch + 1 :])


def _all(space: Space) -> int:
    # Small spaces are searched through before the allowance is spent.
    width = len(space.branches) if space.separate else 1
    fixed = len(space.fixed)
    return math.comb(width * (space.steps - fixed), width * (space.nfe - fixed))
