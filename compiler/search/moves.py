"""Moves: from one mask to its neighbours, within the space.

All masks of a candidate together are one sorted tuple of slots, one for every computed step of every mask:

    slot = step · count + index        count: 1 where all branches share a mask, else the number of branches

Slots of the space's fixed steps stay where they are. Any other slot may move to a free one, and a run of neighbouring
slots may shift together; both keep the total of branch evaluations.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from budc.compiler.search.space import Candidate, Space
from budc.schema.mask import StepMask
from budc.schema.policy import Payload

Slots = tuple[int, ...]


class Trial(NamedTuple):
    """A mask, as slots, and the group of prompts on which it is scored."""

    slots: Slots
    group: int = 0


def mask_count(space: Space) -> int:
    """Return the number of masks that may differ."""
    return len(space.branches) if space.separate else 1


def candidate_count(space: Space) -> int:
    """Return the number of candidates in the space."""
    count, fixed = mask_count(space), len(space.fixed)
    return math.comb((space.steps - fixed) * count, (space.nfe - fixed) * count) * len(space.payloads)


def prefix_count(space: Space) -> int:
    """Return how many steps are computed where every candidate is rolled out, common prefixes once.

    Branches share a mask.
    """
    others, free = space.steps - len(space.fixed), space.nfe - len(space.fixed)
    # A prefix ends at a computed step, so early that all that must follow still fit.
    prefixes = sum(math.comb(others - free + count, count) for count in range(free + 1))
    return len(space.payloads) * (prefixes + len(space.fixed) - 1)


def all_candidates(space: Space) -> Iterator[Candidate]:
    """Yield every candidate once, in an order in which neighbours share long prefixes."""
    count = mask_count(space)
    fixed = [slot for slot in range(space.steps * count) if slot // count in space.fixed]
    others = [slot for slot in range(space.steps * count) if slot // count not in space.fixed]
    for payload in space.payloads:
        for rest in combinations(others, space.nfe * count - len(fixed)):
            yield candidate_of(space, (*fixed, *rest), payload)


def candidate_of(space: Space, slots: Sequence[int], payload: Payload, group: int = 0) -> Candidate:
    """Return the candidate that computes these slots; branches with equal masks share one."""
    count = mask_count(space)
    masks = [
        StepMask.from_compute_steps(space.steps, (slot // count for slot in slots if slot % count == index))
        for index in range(count)
    ]
    return Candidate(tuple(masks[:1] if len(set(masks)) == 1 else masks), space.rule, payload, group)


def slots_of(space: Space, candidate: Candidate) -> Slots:
    """Return the slots that a candidate computes, ascending."""
    count = mask_count(space)
    masks = candidate.masks if len(candidate.masks) == count else candidate.masks * count
    return tuple(
        step * count + index for step in range(space.steps) for index, mask in enumerate(masks) if mask[step]
    )


def movable_slots(space: Space, slots: Slots) -> list[int]:
    """Return the slots that may move, latest first: moving a late one leaves most of the rollout as it was."""
    count = mask_count(space)
    return [slot for slot in reversed(slots) if slot // count not in space.fixed]


def free_slots(space: Space, slots: Slots) -> list[int]:
    """Return the slots that are not computed, ascending."""
    return sorted(set(range(space.steps * mask_count(space))).difference(slots))


def relocations(
    space: Space, slots: Slots, slot: int, distances: Collection[int] | None = None
) -> list[Slots]:
    """Return the slots after every move of `slot` to a free one, by one of `distances` in steps, or by any.

    A distance of 0 moves the computed step to another branch.
    """
    count = mask_count(space)
    return [
        _moved(slots, slot, target)
        for target in free_slots(space, slots)
        if distances is None or abs(target // count - slot // count) in distances
    ]


def all_relocations(space: Space, slots: Slots, distances: Collection[int] | None = None) -> Iterator[Slots]:
    """Yield the relocations of every slot that may move."""
    for slot in movable_slots(space, slots):
        yield from relocations(space, slots, slot, distances)


def run_shifts(space: Space, slots: Slots, reach: int) -> Iterator[Slots]:
    """Yield the slots after every shift of a run of two or more neighbouring slots, by 1 to `reach` steps either way.

    A run keeps its own gaps; the gap before it grows by what the gap behind it loses, or the other way round.
    """
    count, end = mask_count(space), space.steps * mask_count(space)
    for first, last in combinations(range(len(slots)), 2):
        run = slots[first : last + 1]
        if any(slot // count in space.fixed for slot in run):
            continue
        below = slots[first - 1] if first else -1
        above = slots[last + 1] if last + 1 < len(slots) else end
        for distance in range(-reach * count, reach * count + 1, count):
            if distance and below < run[0] + distance and run[-1] + distance < above:
                yield (*slots[:first], *(slot + distance for slot in run), *slots[last + 1 :])


def with_other_payloads(space: Space, candidate: Candidate) -> list[Candidate]:
    """Return the same masks with every other payload."""
    slots = slots_of(space, candidate)
    return [candidate_of(space, slots, payload) for payload in space.payloads if payload != candidate.payload]


def with_every_payload(space: Space, steps: Sequence[int] = ()) -> list[Candidate]:
    """Return, with each payload, the candidate of `steps` (default: evenly spread) and the fixed steps."""
    steps = space.through(steps or StepMask.uniform(space.steps, space.nfe).compute_steps)
    return [Candidate.of(space.steps, steps, space.rule, payload) for payload in space.payloads]


def perturbed(space: Space, candidate: Candidate, rng: random.Random, moves: int = 1) -> Candidate:
    """Move so many random slots to random free ones, or as many as can move."""
    slots = slots_of(space, candidate)
    movable, free = movable_slots(space, slots), free_slots(space, slots)
    moves = min(moves, len(movable), len(free))
    for slot, target in zip(rng.sample(movable, moves), rng.sample(free, moves), strict=True):
        slots = _moved(slots, slot, target)
    return candidate_of(space, slots, candidate.payload)


def random_neighbour(space: Space, candidate: Candidate, rng: random.Random, reach: int) -> Candidate:
    """Move a random slot by at most `reach` steps; where it cannot, move one anywhere."""
    slots = slots_of(space, candidate)
    movable = movable_slots(space, slots)
    near = relocations(space, slots, rng.choice(movable), range(reach + 1)) if movable else []
    if not near:
        return perturbed(space, candidate, rng)
    return candidate_of(space, rng.choice(near), candidate.payload)


def _moved(slots: Slots, slot: int, target: int) -> Slots:
    return tuple(sorted({*slots, target} - {slot}))
