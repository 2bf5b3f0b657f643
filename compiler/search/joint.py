"""The default search: masks and predictors together, with a surrogate that chooses what to roll out next.

A candidate's coefficients are fitted while it is rolled out (`budc.compiler.fitting.trajectory`), so its loss is that
of the mask with its best predictor.

1. Starts (`budc.compiler.search.starts`), with the velocity as payload. The best of them is also tried with the trunk
   residual, which decides the payload (`budc.compiler.search.payload_penalty`). An engine that reuses another one has
   that alone.
2. A surrogate (`budc.compiler.search.surrogate`) learns from all rollouts and ranks hundreds of masks near the best,
   and some that are far from it (`budc.compiler.search.promising`). The most promising one is rolled out, and so on
   until the limit of rollouts. Where there are several groups of prompts, the best start is scored on each, and the
   masks after it on one group after the other: the surrogate tells a mask that is good from one that suits a group.
3. Where there are few masks, as many rollouts are spent on the other payload.

Several may be proposed at a time, for workers that roll them out side by side (`Space.batch`). Each but the first is
chosen as if those before it had the mean of their group's losses so far: a constant liar (Ginsbourger, Le Riche,
Carraro: Kriging is well-suited to parallelize optimization, 2010). The search then has fewer rounds to learn in.

Nothing is drawn at random. Where branches may differ, a computed step may also move to another branch; the total of
branch evaluations stays.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Generator, Iterable
from itertools import cycle

from budc.compiler.search.comparable import comparable_losses
from budc.compiler.search.moves import Slots, Trial, candidate_of, mask_count, prefix_count, slots_of
from budc.compiler.search.payload_penalty import payload_penalty
from budc.compiler.search.promising import most_promising
from budc.compiler.search.space import Candidate, Proposals, Space
from budc.compiler.search.starts import ranked_masks, starting_masks
from budc.schema.policy import Payload

ROLLOUT_LIMIT = 2.5, 20.0, 28.0
"""The limit in rollouts of one candidate from the first step to the last: for each evaluation of the budget, at least
and at most. A small budget has fewer moves to try."""

FEW_MASKS, SHARE_OF_FEW = 5000, 0.03
"""Where there are no more masks than `FEW_MASKS`, this share of them may be rolled out if that is more, and as many
again with the other payload."""

MOST_EVALUATIONS = 250.0
"""The most evaluations that both payloads of few masks take together: what the usual limit is for a budget of ten."""


class RolloutCounter:
    """Counts rollouts, in units of one whole candidate on one group of prompts.

    On a group, candidates with a common prefix share it.
    """

    def __init__(self, space: Space) -> None:
        self._count = mask_count(space)
        self._seen: set[tuple[Payload, int, Slots]] = set()
        self.rollouts = 0.0

    def add(self, trial: Trial, payload: Payload) -> None:
        """Count a candidate."""
        for slot in trial.slots:
            # Branches that compute at the same step do so in the same state.
            until = (slot // self._count + 1) * self._count
            prefix = (slot, *(other for other in trial.slots if other < until))
            if (payload, trial.group, prefix) not in self._seen:
                self._seen.add((payload, trial.group, prefix))
                self.rollouts += 1 / len(trial.slots)


def rollout_limit(steps: int, nfe: int, share: float = 1.0, fixed: int = 1) -> float:
    """Return how many rollouts a search may take for a policy that computes `nfe` of `steps` steps, `fixed` of them in
    every candidate.
    """
    return sum(_limits(steps, nfe, share, fixed))


def _limits(steps: int, nfe: int, share: float, fixed: int) -> tuple[float, float]:
    """Return the limits for the payload that did better on the best start, and for the other one after it."""
    per_evaluation, least, most = ROLLOUT_LIMIT
    masks, usual = math.comb(steps - fixed, max(0, nfe - fixed)), min(most, max(least, per_evaluation * nfe))
    of_few = min(SHARE_OF_FEW * masks, MOST_EVALUATIONS / nfe / 2) if masks <= FEW_MASKS else 0.0
    return share * max(usual, of_few), share * of_few


def candidate_limit(steps: int, nfe: int, share: float = 1.0, fixed: int = 1) -> int:
    """Return about how many candidates are scored at most; the limit of rollouts decides."""
    return int(3 * rollout_limit(steps, nfe, share, fixed))


def candidates_of_joint(space: Space) -> int:
    """Return about how many candidates are scored at most."""
    return candidate_limit(space.steps, space.nfe, space.rollouts, len(space.fixed))


def evaluations_of_joint(space: Space) -> int:
    """Return after how many computed steps it ends: at its limit, or where it has rolled out every mask."""
    limit = space.nfe * rollout_limit(space.steps, space.nfe, space.rollouts, len(space.fixed))
    return math.ceil(min(limit, space.groups * prefix_count(space)))


def joint(space: Space, rng: random.Random) -> Proposals:
    """Search masks, payload and coefficients, `space.batch` candidates at a time."""
    counter, groups = RolloutCounter(space), cycle(range(space.groups))
    # The last payload is tried first: of two, the velocity, whose reuse runs no network.
    payloads = list(reversed(space.payloads))
    losses: dict[Payload, dict[Trial, float]] = {payload: {} for payload in payloads}

    def score(trials: Iterable[Trial], payload: Payload) -> Generator[list[Candidate], list[float], None]:
        trials = list(trials)
        found = yield [candidate_of(space, trial.slots, payload, trial.group) for trial in trials]
        losses[payload].update(zip(trials, found, strict=True))

    def most_promising_batch(payload: Payload, until: float) -> list[Trial]:
        known, chosen = dict(losses[payload]), list[Trial]()
        while len(chosen) < space.batch and counter.rollouts < until:
            slots = most_promising(space, payload, known, ranked)
            if slots is None:
                break
            trial = Trial(slots, next(groups))
            counter.add(trial, payload)
            chosen.append(trial)
            known[trial] = statistics.fmean(
                loss for other, loss in losses[payload].items() if other.group == trial.group
            )
        return chosen

    starts, ranked = (
        [slots_of(space, Candidate.of(space.steps, steps)) for steps in masks]
        for masks in (starting_masks(space), ranked_masks(space))
    )
    for first in range(0, len(starts), space.batch):
        trials = [Trial(slots) for slots in starts[first : first + space.batch]]
        for trial in trials:
            counter.add(trial, payloads[0])
        yield from score(trials, payloads[0])
    best = min(losses[payloads[0]], key=losses[payloads[0]].__getitem__)
    for other in payloads[1:]:
        counter.add(best, other)
        yield from score([best], other)
        kept, tried = (losses[of][best] + payload_penalty(of, space.prompts) for of in (payloads[0], other))
        if tried < kept:
            payloads.reverse()
    until = 0.0
    limits = _limits(space.steps, space.nfe, space.rollouts, len(space.fixed))
    for payload, limit in zip(payloads, limits, strict=False):
        until += limit
        elsewhere = [best._replace(group=group) for group in range(1, space.groups)] if limit else []
        for trial in elsewhere:
            counter.add(trial, payload)
        if elsewhere:
            yield from score(elsewhere, payload)
        while trials := most_promising_batch(payload, until):
            yield from score(trials, payload)
    compared = comparable_losses(space, losses)
    payload, slots = min(compared, key=lambda of: compared[of] + payload_penalty(of[0], space.prompts))
    return candidate_of(space, slots, payload)
