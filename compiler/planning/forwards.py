"""Forwards: how many forwards of the model a compile runs, by stage.

    calibration    full runs of the calibration prompts
    search         the candidates, which share the rollouts of common prefixes
    arbitration    the finalists, on the calibration prompts that the search does not see
    alignment      (with --align) full runs of further pairings of prompts and noise, training with a backward counted
                   as two forwards, and arbitration of the result
    refit          (without) the winner's coefficients, fitted once more on all calibration prompts
    report         full run, policy, uniform mask and fewer steps, on the held-out prompts

A forward is one sample of one branch. How many candidates a search scores depends on their losses. Here it is run on
random losses (`budc.compiler.planning.dry_run`), so the search is an estimate; the other stages are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from budc.compiler.planning.dry_run import dry_run
from budc.compiler.search import algorithm
from budc.compiler.selection.alignment import epochs
from budc.compiler.selection.split import searched_on
from budc.compiler.selection.study import FINALISTS
from budc.compiler.training.augmentation import PAIRINGS
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
    prompts = settings.calibration_size
    searched = searched_on(settings.search, prompts, arbitrates=settings.align)
    search = dry_run(profile, nfe, steps, algorithm(settings.search))
    aligned = settings.align and searched < prompts
    # Samples: an alignment pairs each prompt with several noises, at most as many as there are prompts.
    training, arbitration = (
        min(PAIRINGS if aligned else 1, count) * count for count in (searched, prompts - searched)
    )
    stages = {
        "calibration": steps * prompts,
        "search": search.evaluations * searched,
        "arbitration": min(FINALISTS, search.candidates) * nfe * arbitration,
    }
    if aligned:
        full_runs = steps * (training + arbitration - prompts)
        epoch_forwards = training_forwards(nfe, training, arbitration, epochs(nfe))
        stages["alignment"] = full_runs + epoch_forwards + nfe * arbitration
    elif searched < prompts:
        stages["refit"] = nfe * prompts
    stages["report"] = (steps + 3 * nfe) * profile.prompts.held_out_size
    return {stage: count * len(profile.branches) for stage, count in stages.items()}
