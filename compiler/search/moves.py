"""Moves: from one candidate to its neighbours, within the space.

A candidate's computed steps are seen as one sorted tuple of slots,

    slot = step · lanes + lane

with one lane where all branches share a mask, and one a branch where they may differ. Slots of the space's fixed steps
are always taken; every other taken slot may move to any free one, so that the total of branch evaluations stays.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

from budc.compiler.search.space import Candidate, Space
from budc.schema.mask import StepMask
from budc.schema.policy import Payload

Slots = tuple[int, ...]


def lanes(space: Space) -> int:
    """Return the number of masks that may differ."""
    return len(space.branches) if space.separate else 1


def count(space: Space) -> int:
    """Return the number of candidates in the space."""
    width, fixed = lanes(space), len(space.fixed)
    return math.comb((space.steps - fixed) * width, (space.nfe - fixed) * width) * len(space.payloads)


def all_candidates(space: Space) -> Iterator[Candidate]:
    """Yield every candidate once; neighbours in this order have the longest beginnings in common."""
    width = lanes(space)
    fixed = [slot for slot in range(space.steps * width) if slot // width in space.fixed]
    others = [slot for slot in range(space.steps * width) if slot // width not in space.fixed]
    for payload in space.payloads:
        for rest in combinations(others, space.nfe * width - len(fixed)):
            yield candidate(space, (*fixed, *rest), payload)


def candidate(space: Space, slots: Sequence[int], payload: Payload) -> Candidate:
    """Return the candidate with these slots taken; branches that agree share one mask."""
    width = lanes(space)
    masks = [
        StepMask.from_compute_steps(space.steps, (slot // width for slot in slots if slot % width == lane))
        for lane in range(width)
    ]
    return Candidate(tuple(masks[:1] if len(set(masks)) == 1 else masks), space.rule, payload)


def taken(space: Space, current: Candidate) -> Slots:
    """Return the slots of a candidate, ascending."""
    width = lanes(space)
    masks = current.masks if len(current.masks) == width else current.masks * width
    return tuple(
        step * width + lane for step in range(space.steps) for lane, mask in enumerate(masks) if mask[step]
    )


def movable(space: Space, current: Candidate) -> list[int]:
    """Return the slots that may move, latest first: candidates that differ late share the longest beginning."""
    width = lanes(space)
    return [slot for slot in reversed(taken(space, current)) if slot // width not in space.fixed]


def free(space: Space, current: Candidate) -> list[int]:
    """Return the slots that are not taken, ascending."""
    occupied = set(taken(space, current))
    return [slot for slot in range(space.steps * lanes(space)) if slot not in occupied]


def relocate(space: Space, current: Candidate, slot: int, target: int) -> Candidate:
    """Move one computed step to a free slot."""
    return candidate(space, sorted({*taken(space, current), target} - {slot}), current.payload)


def relocations(space: Space, current: Candidate, slot: int, sizes: Collection[int]) -> list[Candidate]:
    """Return the candidates in which this slot has moved by one of `sizes` steps; 0 is to another branch."""
    width = lanes(space)
    return [
        relocate(space, current, slot, target)
        for target in free(space, current)
        if abs(target // width - slot // width) in sizes
    ]


def relocated(space: Space, slots: Slots, reach: int | None = None) -> Iterator[Slots]:
    """Yield the slots after every relocation of one of them, by at most `reach` steps or to anywhere."""
    width, occupied = lanes(space), set(slots)
    for slot in slots:
        if slot // width in space.fixed:
            continue
        for target in range(space.steps * width):
            if target not in occupied and (reach is None or abs(target // width - slot // width) <= reach):
                yield tuple(sorted({*occupied, target} - {slot}))


def switches(space: Space, current: Candidate) -> list[Candidate]:
    """Return the same masks with every other payload."""
    slots = taken(space, current)
    return [candidate(space, slots, payload) for payload in space.payloads if payload != current.payload]


def kicked(space: Space, current: Candidate, rng: random.Random, moves: int = 1) -> Candidate:
    """Move so many random computed steps to random free slots, or as many as can move."""
    slots, targets = movable(space, current), free(space, current)
    moves = min(moves, len(slots), len(targets))
    for slot, target in zip(rng.sample(slots, moves), rng.sample(targets, moves), strict=True):
        current = relocate(space, current, slot, target)
    return current


def nudged(space: Space, current: Candidate, rng: random.Random, reach: int) -> Candidate:
    """Move a random computed step by at most `reach` steps; where it cannot, one to anywhere."""
    slots = movable(space, current)
    around = relocations(space, current, rng.choice(slots), range(reach + 1)) if slots else []
    return rng.choice(around) if around else kicked(space, current, rng)


def starts(space: Space, slots: Sequence[int] = ()) -> list[Candidate]:
    """Return evenly spread steps, or the given ones, with every payload; all branches alike, and through the fixed
    steps.
    """
    steps = space.through(slots or StepMask.uniform(space.steps, space.nfe).compute_steps)
    return [Candidate.of(space.steps, steps, space.rule, payload) for payload in space.payloads]
