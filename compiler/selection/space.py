"""The space of candidates that a task's search chooses from."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from budc.compiler.fitting.gram import mean_gram, segment_errors
from budc.compiler.rollouts.reference_run import ReferenceRun
from budc.compiler.search import Space, algorithm
from budc.compiler.search.moves import candidate_count
from budc.compiler.selection.stages import Stages
from budc.compiler.selection.task import Task


def space_of(task: Task, run: ReferenceRun, stages: Stages | None = None) -> Space:
    """Return the space of a task, with the reuse errors of a reference run where the search asks for them.

    The search scores on groups of the run's prompts, or on all where no `stages` are given.
    """
    errors: dict[str, Sequence[Sequence[Sequence[float]]]] = {}
    first_steps = task.denoiser.first_steps(task.schedule.timesteps)
    if algorithm(task.search).objective != "mean":
        for payload in task.payloads:
            gram = mean_gram(run.gram[payload])
            errors[payload] = segment_errors(gram, 2, first_steps=first_steps).tolist()
    space = Space(
        steps=task.schedule.steps,
        nfe=task.nfe,
        branches=task.denoiser.branches,
        prompts=stages.screen if stages else len(run),
        groups=stages.groups if stages else 1,
        annealing=task.annealing,
        separate=task.separate,
        rollouts=task.share,
        errors=errors,
        step_sizes=task.schedule.step_sizes,
        published_masks=task.published_masks,
        starts=task.starts,
        first_steps=first_steps,
        rule=task.rule,
        payloads=task.payloads,
        always=task.always,
        batch=task.proposed,
    )
    # The only mask there is has no rivals on other groups.
    return space if candidate_count(space) > len(space.payloads) else msgspec.structs.replace(space, groups=1)
