"""The default search: mask and predictor together, each rollout where a surrogate expects the most of it.

Every candidate's coefficients are fitted while it is rolled out (`fitting/trajectory.py`), so a loss is that of
the mask with its best predictor, and both are searched at once. Starts: evenly spread steps, the same stretched to
the end of the schedule, dynamic programming's path and published schedules, with the velocity as payload; the best
of them is tried with the trunk residual too. From there a surrogate (`budc.compiler.search.surrogate`), which learns
from every rollout, ranks hundreds of masks near the best one, and the most promising is rolled out, until the allowance
is spent; where there are few masks, with the other payload too. Nothing is drawn at random.

Where branches may differ, a computed step may also move to another branch: the total of branch evaluations stays.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Generator, Mapping

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.moves import Slots, candidate, lanes, relocated, taken
from budc.compiler.search.space import Candidate, Space
from budc.compiler.search.surrogate import Surrogate
from budc.schema.mask import StepMask
from budc.schema.policy import Payload

ALLOWANCE = 2.5, 20.0, 28.0
"""What may be spent, in rollouts of one candidate from its first step to its last: for each evaluation of the budget,
and the least and the most of it. A budget of few evaluations has fewer moves to try."""

SMALL = 5000, 0.03
"""Where there are no more masks than this, a search for the best is soon done: such a share of them may be spent, and
as much again on the other payload."""

PREFERENCE = 0.2
"""By how much (a log) the trunk residual must be better on the best start: reused velocities need no network."""

BEAM, REACH = 5, 3
"""Of the masks one relocation from the best, the most promising are moved on from, and by how many steps at most."""


class Spending:
    """Counts what candidates cost when those that begin alike share it, in rollouts."""

    def __init__(self, space: Space) -> None:
        self._lanes = lanes(space)
        self._seen: set[tuple[Payload, Slots]] = set()
        self.rollouts = 0.0

    def add(self, slots: Slots, payload: Payload) -> None:
        """Count a candidate."""
        for slot in slots:
            # Branches that compute at the same step do so in the same state.
            until = (slot // self._lanes + 1) * self._lanes
            prefix = (slot, *(other for other in slots if other < until))
            if (payload, prefix) not in self._seen:
                self._seen.add((payload, prefix))
                self.rollouts += 1 / len(slots)


def allowance(steps: int, nfe: int) -> float:
    """Return the rollouts that a search for a policy of `nfe` evaluations a branch out of `steps` may spend."""
    return sum(_allowances(steps, nfe))


def _allowances(steps: int, nfe: int) -> tuple[float, float]:
    """Return what may be spent on the payload that did better on the best start, and on the other one after it."""
    each, least, most = ALLOWANCE
    few, share = SMALL
    masks = math.comb(steps - 1, nfe - 1)
    of_few = share * masks if masks <= few else 0.0
    return max(min(most, max(least, each * nfe)), of_few), of_few


def candidates_of_joint(space: Space) -> int:
    """Return about how many candidates are scored; the allowance decides."""
    return int(3 * allowance(space.steps, space.nfe))


def stretched(steps: int, nfe: int) -> tuple[int, ...]:
    """Return evenly spread steps that reach to the last but one: the end of a schedule needs fresh ones."""
    last = max(nfe - 1, steps - 2)
    return tuple(round(last * index / max(1, nfe - 1)) for index in range(nfe))


def starts(space: Space) -> list[tuple[int, ...]]:
    """Return the masks to start from, each once, as compute steps."""
    found = [StepMask.uniform(space.steps, space.nfe).compute_steps, stretched(space.steps, space.nfe)]
    if "velocity" in space.errors:
        found.append(shortest_path(space, "velocity"))
    found.extend(space.published_masks)
    return list(dict.fromkeys(space.through(steps) for steps in found))


def joint(space: Space, rng: random.Random) -> Generator[list[Candidate], list[float], Candidate]:
    """Search masks, payload and coefficients, one candidate at a time."""
    spending = Spending(space)
    losses: dict[Payload, dict[Slots, float]] = {"velocity": {}, "trunk-residual": {}}

    def scored(slots: Slots, payload: Payload) -> Generator[list[Candidate], list[float], None]:
        spending.add(slots, payload)
        (losses[payload][slots],) = yield [candidate(space, slots, payload)]

    for steps in starts(space):
        yield from scored(taken(space, Candidate.of(space.steps, steps)), "velocity")
    best = _best(losses["velocity"])
    yield from scored(best, "trunk-residual")
    behind = losses["velocity"][best] - losses["trunk-residual"][best]
    payloads: list[Payload] = ["velocity", "trunk-residual"]
    if behind > PREFERENCE:
        payloads.reverse()
    until = 0.0
    for payload, more in zip(payloads, _allowances(space.steps, space.nfe), strict=True):
        until += more
        while spending.rollouts < until and (slots := promising(space, payload, losses[payload])):
            yield from scored(slots, payload)
    payload = min(losses, key=lambda of: min(losses[of].values()))
    return candidate(space, _best(losses[payload]), payload)


def promising(space: Space, payload: Payload, known: Mapping[Slots, float]) -> Slots | None:
    """Return the slots that are most worth rolling out, None where all are known.

    They are looked for around the best known ones: one relocation away and, from the most promising of these, two.
    """
    surrogate = Surrogate(space, payload, known)
    for centre in sorted(known, key=known.__getitem__):
        promises: dict[Slots, float] = {}
        around = [centre]
        for reach in (None, REACH):
            near = {slots for one in around for slots in relocated(space, one, reach)}
            fresh = sorted(near - known.keys() - promises.keys())
            if fresh:
                promises |= zip(fresh, surrogate.improvement(fresh), strict=True)
            around = heapq.nlargest(BEAM, promises, key=promises.__getitem__)
        if around:
            return around[0]
    return None


def _best(known: Mapping[Slots, float]) -> Slots:
    return min(known, key=known.__getitem__)
