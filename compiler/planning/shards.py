"""Shards: what a compile takes where jobs on several devices share its full runs (`budc compile --shard`).

Jobs share the full runs of calibration and held-out prompts, a job the largest part of them where they do not divide.
The search, the policies of the report and the rest of the compile follow on one device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from budc.compiler.planning.count import Count
from budc.compiler.planning.estimate import CompileEstimate


def sharded(estimate: CompileEstimate, jobs: int) -> Mapping[str, Count]:
    """Return stage -> the forwards that follow one another where so many jobs share the full runs."""
    settings = estimate.settings
    full_run = settings.steps * len(settings.profile.branches)

    def saved(prompts: int) -> int:
        """Return what a job leaves to the others."""
        return full_run * (prompts - math.ceil(prompts / jobs))

    shared = {"calibration": settings.stages.total, "report": settings.held_out_size}
    return {
        stage: Count(*(value - saved(shared.get(stage, 0)) for value in count))
        for stage, count in estimate.stages.items()
    }
