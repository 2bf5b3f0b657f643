"""Workers: what a compile takes where those of a Ray cluster share it (`budc compile --ray`).

Full runs, the report, candidates, finalists, what a refinement measures, and policies that are judged are shared.
Moves of the best finalist's steps, a refit, and an alignment with its judges, follow on one device. Candidates of
`joint` are proposed in batches, so no more than a batch is rolled out at a time. Those that begin alike share that part
only where the same worker has both: between all of it and none. Other searches, and those at the size of a proxy, are
counted as if one device rolled out all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from budc.compiler.planning.count import Count
from budc.compiler.planning.estimate import CompileEstimate
from budc.compiler.planning.forwards import CompileSettings
from budc.compiler.search.joint import candidate_limit
from budc.compiler.search.space import DEFAULT_BATCH
from budc.compiler.selection.effort import REFINED_AT_ONCE, effort

OF_FINALISTS = 0.75
"""About the share of a race's forwards that finalists take, as they begin alike; moves of the best take the rest."""


def on_workers(estimate: CompileEstimate, workers: int) -> Mapping[str, Count]:
    """Return stage -> the forwards that follow one another on so many workers."""
    settings, given = estimate.settings, effort(estimate.settings.effort)
    shares = {
        "calibration": _share_of_prompts(settings.stages.total, workers),
        "report": _share_of_prompts(settings.held_out_size, workers),
        "race": _share_of_race(given.finalists, workers),
        "refinement": _share(_measured(settings), workers),
        "arbitration": 1.0 if settings.align else _share(settings.stages.finalists(given), workers),
    }
    stages = {
        stage: Count(*(math.ceil(shares.get(stage, 1.0) * value) for value in count))
        for stage, count in estimate.stages.items()
    }
    if settings.search == "joint" and settings.proxy is None:
        stages["search"] = _search(estimate, workers)
    return stages


def _measured(settings: CompileSettings) -> int:
    """Return into how many tasks a refinement is cut; its last rollout, which is none of them, is small."""
    refined = effort(settings.effort).refined(max(settings.budgets), settings.steps, settings.stages.fit)
    return max(1, math.ceil(refined / REFINED_AT_ONCE))


def _share(tasks: int, workers: int) -> float:
    """Return which share of equal tasks the busiest worker has."""
    return math.ceil(tasks / workers) / tasks


def _share_of_race(finalists: int, workers: int) -> float:
    """Return the share of a race's forwards that follow one another: finalists are side by side, moves are not.

    A worker that did not roll out the winner does so before its first move.
    """
    return 1.0 if workers == 1 else _share(finalists, workers) + 1 - OF_FINALISTS + 1 / finalists


def _share_of_prompts(prompts: int, workers: int) -> float:
    """Return the busiest worker's share of prompts, which are cut into as many pieces as a batch has candidates."""
    piece = math.ceil(prompts / DEFAULT_BATCH)
    return min(1.0, piece * math.ceil(math.ceil(prompts / piece) / workers) / prompts)


def _search(estimate: CompileEstimate, workers: int) -> Count:
    """Return the bounds of the search: all common prefixes are shared, or none; between them the mean."""
    settings, known = estimate.settings, estimate.stages["search"]
    evaluations = sum(
        nfe * candidate_limit(settings.steps, nfe, effort(settings.effort).share(nfe))
        for nfe in settings.budgets
    )
    unshared = evaluations * settings.stages.screen * len(settings.profile.branches)
    share = _share(DEFAULT_BATCH, workers)
    least, most = math.ceil(share * known.least), math.ceil(min(share * unshared, known.most))
    return Count((least + most) // 2, least, most)
