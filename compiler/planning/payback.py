"""Payback: what a sample costs before and after, and after how many samples a compile has paid for itself.

Counted in forwards, so that it holds for every device. A reused step still runs what is around the blocks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from budc.compiler.planning.estimate import CompileEstimate


class Payback(NamedTuple):
    """Forwards of one sample, all branches together: of every step, and under the policy."""

    full: float
    policy: float
    samples: int | None
    """How many samples save as much as the compile costs; None where a sample saves nothing."""


def payback(estimate: CompileEstimate) -> Payback:
    """Return what a sample costs, against what the compile costs."""
    settings, cost = estimate.settings, estimate.cost
    branches = len(settings.profile.branches)
    reused = (settings.steps - settings.nfe) * cost.reuse_flops / cost.flops
    full, policy = branches * settings.steps, branches * (settings.nfe + reused)
    saved = full - policy
    return Payback(full, policy, math.ceil(estimate.forwards / saved) if saved > 0 else None)
