"""Dynamic programming over the full run's reuse errors: the best mask of an additive surrogate, exactly.

    cost(mask) = Σ_k E[previous, last, k]        over reused steps k

`last` and `previous` are the newest computed steps before k. The sum splits at the computed steps, so it is the
length of a path through the pairs (previous, last), and the shortest one of `nfe` nodes is found in
O(nfe · steps³). What it leaves out is that errors are carried along and meet: one rollout of each payload
decides between their paths. Reusing a fixed step costs everything, so every path leads through all of them.

Scheduling a cache as a shortest path is LeMiCa's idea (arXiv 2511.00090, whose edges are errors of final latents and
whose paths are compared by their largest edge), and costs that depend on the computed step before the last are
DPCache's (arXiv 2602.22654). The cost here is the squared error that the best coefficients of two terms leave
(`budc.compiler.fitting.gram`), summed.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate

from budc.compiler.search.space import Candidate, Proposals, Space
from budc.schema.errors import UsageError
from budc.schema.policy import Payload

Pair = tuple[int, int]
"""(previous, last) of the computed steps; (0, 0) where only the first is computed."""


def shortest_path(space: Space, payload: Payload) -> tuple[int, ...]:
    """Return the compute steps of least cost; of equal ones, the lexicographically first.

    Raises:
        UsageError: the space holds no reuse errors of this payload.
    """
    if payload not in space.errors:
        raise UsageError(f"no reuse errors of the {payload} are known", remedy="use --search hillclimb")
    steps, errors = space.steps, space.errors[payload]

    def segment(pair: Pair) -> list[float]:
        # Entry n: the cost of reusing the steps between `last` and n.
        previous, last = pair
        reused = (math.inf if k in space.fixed else errors[previous][last][k] for k in range(last + 1, steps))
        return [math.inf] * (last + 1) + list(accumulate(reused, initial=0.0))

    segments = {(p, n): segment((p, n)) for n in range(steps) for p in range(n) or (0,)}
    # Backwards: `ahead[pair]` is the least cost after `pair` with so many steps yet to compute, `then` the next one.
    ahead = {pair: costs[steps] for pair, costs in segments.items()}
    choices: list[dict[Pair, int]] = []
    for _ in range(space.nfe - 1):
        before, ahead, then = ahead, {}, dict[Pair, int]()
        for pair, costs in segments.items():
            last = pair[1]
            follow = [costs[n] + before.get((last, n), math.inf) for n in range(last + 1, steps)]
            if follow:
                ahead[pair] = min(follow)
                then[pair] = last + 1 + follow.index(ahead[pair])
        choices.append(then)
    path, pair = [0], (0, 0)
    for then in reversed(choices):
        pair = (pair[1], then[pair])
        path.append(pair[1])
    return tuple(path)


def candidates_of_dp(space: Space) -> int:
    """Return how many candidates are scored: one a payload."""
    return len(space.payloads)


def dp(space: Space, rng: random.Random) -> Proposals:
    """Roll out the shortest path of every payload, one mask for all branches, and return the best."""
    found = [
        Candidate.of(space.steps, shortest_path(space, payload), space.rule, payload)
        for payload in space.payloads
    ]
    losses = yield found
    return found[losses.index(min(losses))]
