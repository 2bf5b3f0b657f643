"""Masks as shortest paths over the full run's reuse errors, with plain reuse: after DPCache and LeMiCa.

    cost(a, b) = Σ_{a < k < b} Σ_branches ‖r_k - r_a‖²        residuals of the full run, mean over prompts

is what it costs to reuse step a up to step b. A mask is a path from step 0 to the end with as many nodes as its budget.
`total` adds the edges up (DPCache, arXiv 2602.22654, is a dynamic programme of this form), `minimax` compares paths
by their largest edge, then the next largest, and so on (LeMiCa, arXiv 2511.00090).

Simplified: LeMiCa measures an edge by the final output of a run in which only that segment is cached, which takes a
rollout per edge; DPCache's cost also depends on the computed step before, and it forecasts features. Here both
use the residuals of the full run, which every other method has too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from torch import Tensor

from budc.compiler.comparison.fitted import Fitted, plain
from budc.compiler.comparison.setting import Setting
from budc.compiler.fitting.gram import mean_gram

Cost = tuple[float, ...]


def reuse_errors(setting: Setting) -> Tensor:
    """Return E[a, k] = Σ_branches ‖r_k - r_a‖² (steps, steps), each prompt scaled to mean energy 1."""
    gram = mean_gram(setting.calibration.run.gram["trunk-residual"]).sum(0)
    energy = gram.diagonal()
    return energy[None, :] - 2 * gram + energy[:, None]


def edges(errors: Tensor) -> list[list[float]]:
    """Return cost(a, b) for a < b <= steps."""
    steps = len(errors)
    sums = errors.cumsum(1)
    return [
        [float(sums[a, b - 1] - sums[a, a]) if b > a else float("inf") for b in range(steps + 1)]
        for a in range(steps)
    ]


def shortest(costs: list[list[float]], nfe: int, join: Callable[[Cost, float], Cost]) -> tuple[int, ...]:
    """Return the `nfe` nodes of the best path from 0 to the end; costs of paths are compared as tuples."""
    steps = len(costs)
    best: dict[int, tuple[Cost, tuple[int, ...]]] = {0: ((), (0,))}
    for _ in range(nfe - 1):
        reached: dict[int, tuple[Cost, tuple[int, ...]]] = {}
        for node, (cost, path) in best.items():
            for after in range(node + 1, steps):
                extended = (join(cost, costs[node][after]), (*path, after))
                if after not in reached or extended < reached[after]:
                    reached[after] = extended
        best = reached
    return min((join(cost, costs[node][steps]), path) for node, (cost, path) in best.items())[1]


def add(cost: Cost, edge: float) -> Cost:
    """Join by adding up."""
    return (sum(cost) + edge,)


def largest_first(cost: Cost, edge: float) -> Cost:
    """Join by keeping all edges, the largest first."""
    return tuple(heapq.merge(cost, (edge,), reverse=True))


def _fit(setting: Setting, nfe: int, join: Callable[[Cost, float], Cost]) -> Fitted:
    steps = shortest(edges(reuse_errors(setting)), nfe, join)
    policy = plain(setting.form.steps, steps, setting.branches)
    return Fitted(policy=policy, forwards=setting.full_forwards, chosen={"steps": list(steps)})


def total(setting: Setting, nfe: int) -> Fitted:
    """Minimise the sum of the edges."""
    return _fit(setting, nfe, add)


def minimax(setting: Setting, nfe: int) -> Fitted:
    """Minimise the edges from the largest down."""
    return _fit(setting, nfe, largest_first)
