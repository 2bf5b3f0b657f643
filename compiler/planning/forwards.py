"""Forwards: how many forwards of the model a compile runs, by stage.

    calibration    full runs of the calibration prompts that its effort takes
    search         the candidates, which share the rollouts of common prefixes
    race           the finalists, on more of these prompts
    arbitration    the finalists, on the prompts that judge
    alignment      (with --align) full runs of further pairings of prompts and noise, training with a backward counted
                   as two forwards, and arbitration of the result
    refit          (without) the winner's coefficients, fitted once more on judges and all
    report         full run, policy, uniform mask and fewer steps, on the held-out prompts

A forward is one sample of one branch. How many candidates a search scores depends on their losses. Here it is run on
random losses (`budc.compiler.planning.dry_run`), so search and race are estimates; the other stages are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from budc.compiler.planning.dry_run import dry_run
from budc.compiler.search import algorithm
from budc.compiler.selection.effort import DEFAULT_EFFORT, effort, epochs
from budc.compiler.selection.stages import stages_of
from budc.compiler.selection.study import FINALISTS
from budc.compiler.training.trainer import training_forwards
from budc.policies.profile import ModelProfile


@dataclass(frozen=True)
class CompileSettings:
    """What the cost of a compile depends on; `prompts` are calibration prompts, by default as many as the profile's."""

    profile: ModelProfile
    nfe: int
    steps: int
    search: str
    align: bool = False
    prompts: int | None = None
    effort: str = DEFAULT_EFFORT

    @property
    def calibration_size(self) -> int:
        """The number of calibration prompts."""
        return self.prompts or self.profile.prompts.calibration_size


def forwards_by_stage(settings: CompileSettings) -> dict[str, int]:
    """Return stage -> forwards of a compile.

    Raises:
        UsageError: the calibration prompts are too few to leave one by which an alignment is judged.
    """
    profile, nfe, steps = settings.profile, settings.nfe, settings.steps
    given = effort(settings.effort)
    prompts = stages_of(
        settings.search, settings.effort, settings.calibration_size, arbitrates=settings.align
    )
    search = dry_run(profile, nfe, steps, algorithm(settings.search), given.rollouts)
    finalists = min(FINALISTS, search.candidates)
    stages = {"calibration": steps * prompts.total, "search": search.evaluations * prompts.screen}
    if prompts.screen < prompts.fit:
        stages["race"] = min(given.finalists, finalists) * nfe * prompts.fit
    # Samples: an alignment pairs each prompt with several noises, at most as many as there are prompts.
    aligned = settings.align and prompts.judge > 0
    training, judging = (
        min(given.pairings if aligned else 1, count) * count for count in (prompts.fit, prompts.judge)
    )
    if prompts.judge:
        stages["arbitration"] = finalists * nfe * judging
    if aligned:
        full_runs = steps * (training + judging - prompts.total)
        epoch_forwards = training_forwards(nfe, training, judging, epochs(nfe, given))
        stages["alignment"] = full_runs + epoch_forwards + nfe * judging
    elif prompts.judge:
        stages["refit"] = nfe * prompts.total
    report = profile.prompts.held_out_size
    stages["report"] = (steps + 3 * nfe) * (report if given.report is None else min(given.report, report))
    return {stage: count * len(profile.branches) for stage, count in stages.items()}
