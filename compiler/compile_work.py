"""The work of a compile, pass by pass, from which the time that is left of all of them is told.

It is `budc.compiler.planning.forwards` by the passes' labels. Where a quality or a time decides how many budgets are
tried, it is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from budc.compiler.compile_plan import CompilePlan
from budc.compiler.planning.dry_run import Given, dry_run, given_to
from budc.compiler.search import algorithm
from budc.compiler.selection.effort import AFTER_PROXY, FINALISTS, effort, epochs
from budc.compiler.selection.stages import Stages, stages_of
from budc.compiler.training.forwards import training_forwards
from budc.compiler.training.second_stage import configuration
from budc.progress.remaining_work import RemainingWork

_LANDSCAPES = 3
"""Made-up losses on which a search is counted; a plan takes more, here the user waits for the first pass."""


def compile_work(plan: CompilePlan) -> RemainingWork | None:
    """Return the passes of a compile with the forwards of each; None where they are not known."""
    if plan.quality is not None or plan.within is not None or plan.further_sizes:
        return None
    samples = plan.target.samples
    stages = stages_of(
        plan.search,
        plan.effort,
        plan.largest,
        len(samples.calibration),
        arbitrates=plan.align or plan.auto_steps,
    )
    held_out, branches = len(samples.held_out), len(plan.target.profile.branches)
    counts: dict[str, list[float]] = {
        "calibration full": [plan.steps * stages.total],
        "held-out full": [plan.steps * held_out],
    }
    each: dict[str, list[float]] = {}
    if plan.proxy is not None:
        # At each budget the proxy's pass comes before the real one.
        share = _share(plan)
        counts["calibration full"].insert(0, plan.steps * stages.screen * share)
        each["calibration full"] = [share]
        for label, worth in ((f"search ({plan.search})", share), ("search (joint)", 1.0)):
            each.setdefault(label, []).append(worth)
        each |= {label: own * len(plan.policies) for label, own in each.items() if label.startswith("search")}
    for planned in plan.policies:
        for label, forwards in _of_budget(plan, stages, planned.nfe, held_out).items():
            counts.setdefault(label, []).extend(forwards)
    passes = {label: [count * branches for count in forwards] for label, forwards in counts.items()}
    if plan.target.frames:
        # To decode a sample takes about as long as a forward.
        passes["held-out frames"] = [(3 * len(plan.policies) + 1) * held_out]
    return RemainingWork(passes, each)


def _share(plan: CompilePlan) -> float:
    """Return about which share of a forward one at the size of the proxy is: that of the pixels."""
    assert plan.proxy is not None
    profile = plan.target.profile
    return math.prod(plan.proxy) / (profile.height * profile.width * profile.frames)


def _searches(plan: CompilePlan, space: Given, stages: Stages) -> dict[str, list[float]]:
    """Return the search, and with a proxy the one there before it."""
    share = effort(plan.effort).rollouts
    searched = dry_run(space, plan.search, share, landscapes=_LANDSCAPES).expected * stages.screen
    if plan.proxy is None:
        return {f"search ({plan.search})": [searched]}
    after = dry_run(space, "joint", min(AFTER_PROXY, share)).expected * stages.screen
    passes = {f"search ({plan.search})": [searched * _share(plan)]}
    passes.setdefault("search (joint)", []).append(after)
    return passes


def _of_budget(plan: CompilePlan, stages: Stages, nfe: int, held_out: int) -> Mapping[str, list[float]]:
    given = effort(plan.effort)
    profile = plan.target.profile
    space = given_to(profile, nfe, plan.steps, plan.engine)
    if plan.mask is not None:
        space = space._replace(published_masks=(plan.mask.compute_steps,))
    passes = _searches(plan, space, stages)
    passes[f"held-out {nfe} "] = [nfe * held_out] * 3
    if stages.screen < stages.fit:
        passes["race"] = [given.finalists * nfe * stages.fit]
    if plan.align and not algorithm(plan.search).arbitrated:
        second_stage = configuration(len(profile.branches)).epochs(stages.fit)
        passes["align"] = [training_forwards(nfe, stages.fit, 0, second_stage)]
    if not stages.judge:
        return passes
    judges = stages.judge
    if plan.align:
        training, judges = (min(given.pairings, count) * count for count in (stages.fit, stages.judge))
        passes["paired"] = [plan.steps * (training - stages.fit), plan.steps * (judges - stages.judge)]
        passes["align"] = [training_forwards(nfe, training, judges, epochs(nfe, given))]
    passes["arbitration"] = [FINALISTS * nfe * judges]
    passes["refit"] = [nfe * stages.total]
    return passes
