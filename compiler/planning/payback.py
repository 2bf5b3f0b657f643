"""Payback: what a sample costs before and after, and after how many samples a compile has paid for itself.

Counted in forwards, also those that an alignment computes again, so that it holds for every device. A reused step
still runs what is around the blocks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from budc.compiler.planning.count import Count
from budc.compiler.planning.estimate import CompileEstimate


class Payback(NamedTuple):
    """Forwards of one sample, all branches together: of every step, and under the policy of `nfe` evaluations."""

    nfe: int
    full: float
    policy: float
    samples: Count | None
    """How many samples save as much as the whole compile costs; None where a sample saves nothing."""


def paybacks(estimate: CompileEstimate) -> tuple[Payback, ...]:
    """Return for each budget what a sample costs, against what the compile costs."""
    settings, cost = estimate.settings, estimate.cost
    branches = len(settings.profile.branches)
    full = branches * settings.steps
    found = []
    for nfe in settings.budgets:
        policy = branches * (nfe + (settings.steps - nfe) * cost.reuse_flops / cost.flops)
        saved = full - policy
        samples = Count(*(math.ceil(count / saved) for count in estimate.time)) if saved > 0 else None
        found.append(Payback(nfe, full, policy, samples))
    return tuple(found)
