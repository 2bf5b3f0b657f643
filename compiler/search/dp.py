"""Dynamic programming on the reference run's reuse errors: the best mask of an additive surrogate, exactly.

    cost(mask) = Σ_k w[k] · E[previous, last, k]        over reused steps k

`last` and `previous` are the two newest computed steps before k. The cost is the length of a path through pairs
(previous, last), so the shortest path of `nfe` nodes is the best mask, found in O(nfe · steps³). A fixed step costs
infinity where it is reused, so every path computes it. The sum does not see that errors are carried along and
interact; one rollout for each payload decides between the paths.

E is an error of velocities. What it makes of the latents is larger by the size of the step, but errors of early steps,
which may be short, can also grow on the way. So w is a power of the step's size: 0 for the search `dp`; `joint` tries
several and keeps the one that explains its rollouts best (docs/adr/0015-efforts.md).

Scheduling a cache as a shortest path is from LeMiCa (arXiv 2511.00090: edges are errors of final latents, paths are
compared by their largest edge); costs that depend on the computed step before the last are from DPCache (arXiv
2602.22654). The cost here is the squared error that remains with the best coefficients of two terms
(`budc.compiler.fitting.gram`), summed.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate

from budc.compiler.search.space import Candidate, Proposals, Space
from budc.option_names import option
from budc.schema.errors import UsageError
from budc.schema.policy import Payload

LEAST_SIZE = 1e-6
"""The least size of a step, relative to the mean: a step that lowers sigma by nothing still has a weight."""

Pair = tuple[int, int]
"""(previous, last) of the computed steps; (0, 0) where only the first is computed."""


def step_weights(space: Space, power: float) -> tuple[float, ...]:
    """Return (size / mean size) ** power for every step; ones where the sizes of steps are not known."""
    if not any(space.step_sizes):
        return (1.0,) * space.steps
    mean = math.fsum(space.step_sizes) / space.steps
    return tuple(max(size / mean, LEAST_SIZE) ** power for size in space.step_sizes)


def shortest_path(space: Space, payload: Payload, power: float = 0.0) -> tuple[int, ...]:
    """Return the compute steps of least cost; of equal ones, the lexicographically first.

    `power` is that of a step's size in its weight.

    Raises:
        UsageError: the space has no reuse errors of this payload.
    """
    if payload not in space.errors:
        raise UsageError(
            f"no reuse errors of the {payload} are known", remedy=f"use {option('search', 'hillclimb')}"
        )
    steps, errors, weights = space.steps, space.errors[payload], step_weights(space, power)

    def segment(pair: Pair) -> list[float]:
        # Entry n: the cost of reusing the steps between `last` and n.
        previous, last = pair
        reused = (
            math.inf if k in space.fixed else weights[k] * errors[previous][last][k]
            for k in range(last + 1, steps)
        )
        return [math.inf] * (last + 1) + list(accumulate(reused, initial=0.0))

    segments = {(p, n): segment((p, n)) for n in range(steps) for p in range(n) or (0,)}
    # Backwards: the least cost after a pair, with one step more to compute each time, and the step that achieves it.
    cost_to_go = {pair: costs[steps] for pair, costs in segments.items()}
    choices: list[dict[Pair, int]] = []
    for _ in range(space.nfe - 1):
        shorter, cost_to_go, next_step = cost_to_go, {}, dict[Pair, int]()
        for pair, costs in segments.items():
            last = pair[1]
            totals = [costs[n] + shorter.get((last, n), math.inf) for n in range(last + 1, steps)]
            if totals:
                cost_to_go[pair] = min(totals)
                next_step[pair] = last + 1 + totals.index(cost_to_go[pair])
        choices.append(next_step)
    path, pair = [0], (0, 0)
    for next_step in reversed(choices):
        pair = (pair[1], next_step[pair])
        path.append(pair[1])
    return tuple(path)


def candidates_of_dp(space: Space) -> int:
    """Return how many candidates are scored: one for each payload."""
    return len(space.payloads)


def evaluations_of_dp(space: Space) -> int:
    """Return how many steps the rollouts compute: payloads share none."""
    return candidates_of_dp(space) * space.nfe


def dp(space: Space, rng: random.Random) -> Proposals:
    """Roll out the shortest path of every payload, one mask for all branches, and return the best."""
    candidates = [
        Candidate.of(space.steps, shortest_path(space, payload), space.rule, payload)
        for payload in space.payloads
    ]
    losses = yield candidates
    return candidates[losses.index(min(losses))]
