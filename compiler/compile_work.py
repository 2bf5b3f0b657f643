"""The work of a compile, pass by pass, from which the time that is left of all of them is told.

It is `budc.compiler.planning.forwards` in less detail: nothing is searched on made-up losses. Where the number of
candidates depends on losses, or a quality decides how many budgets are tried, it is not known.
"""

from __future__ import annotations

from collections.abc import Mapping

from budc.compiler.compile_plan import CompilePlan
from budc.compiler.search.joint import rollout_limit
from budc.compiler.selection.effort import FINALISTS, effort, epochs
from budc.compiler.selection.stages import Stages, stages_of
from budc.compiler.training.forwards import training_forwards
from budc.progress.remaining_work import RemainingWork

_ROLLOUTS = {"uniform": 1.0, "dp": 2.0, "given": 1.0, "given-fitted": 1.0}
"""Rollouts of searches that take as many whatever the losses are."""


def compile_work(plan: CompilePlan) -> RemainingWork | None:
    """Return the passes of a compile with the forwards of each; None where they are not known."""
    known = plan.search == "joint" or plan.search in _ROLLOUTS
    if not known or plan.quality is not None or plan.within is not None or plan.further_sizes:
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
    for planned in plan.policies:
        for label, forwards in _of_budget(plan, stages, planned.nfe, held_out).items():
            counts.setdefault(label, []).extend(forwards)
    passes = {label: [count * branches for count in forwards] for label, forwards in counts.items()}
    if plan.target.frames:
        # To decode a sample takes about as long as a forward.
        passes["held-out frames"] = [(3 * len(plan.policies) + 1) * held_out]
    return RemainingWork(passes)


def _of_budget(plan: CompilePlan, stages: Stages, nfe: int, held_out: int) -> Mapping[str, list[float]]:
    given = effort(plan.effort)
    rollouts = _ROLLOUTS.get(plan.search) or rollout_limit(plan.steps, nfe, given.rollouts)
    passes: dict[str, list[float]] = {
        f"search ({plan.search})": [rollouts * nfe * stages.screen],
        f"held-out {nfe} ": [nfe * held_out] * 3,
    }
    if stages.screen < stages.fit:
        passes["race"] = [given.finalists * nfe * stages.fit]
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
