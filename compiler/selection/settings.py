"""The settings of a search as an artifact lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from budc.compiler.search import algorithm
from budc.compiler.search.joint import rollout_limit
from budc.compiler.search.space import fixed_steps
from budc.compiler.selection.effort import effort, epochs
from budc.compiler.selection.stages import Stages
from budc.compiler.selection.task import SearchResult, Settings, Task
from budc.compiler.training.second_stage import configuration


def settings_of(task: Task, stages: Stages, result: SearchResult) -> Settings:
    """Return what a search was run with, its loss on the prompts that it saw, and the choices made after it."""
    settings: dict[str, bool | int | float | str] = {
        "calibrationLoss": result.loss,
        "aligned": result.aligned,
    }
    if task.search == "paper":
        settings |= msgspec.to_builtins(task.annealing)
    if algorithm(task.search).arbitrated:
        branches = "separate" if task.separate else "together"
        settings |= {"effort": task.effort, **stages._asdict(), "branches": branches}
        if result.forwards.refinement:
            settings["refined"] = effort(task.effort).refined(task.nfe, task.schedule.steps, stages.fit)
        if stages.groups > 1:
            settings["groups"] = stages.groups
        if task.states != "float32":
            settings["states"] = task.states
    if task.search == "joint":
        fixed = fixed_steps(task.denoiser.first_steps(task.schedule.timesteps), task.always)
        settings |= {
            "allowance": rollout_limit(task.schedule.steps, task.nfe, task.share, len(fixed)),
            **({"batch": task.proposed} if task.proposed > 1 else {}),
        }
    if task.align:
        second_stage = configuration(len(task.denoiser.branches))
        settings["epochs"] = (
            epochs(task.nfe, effort(task.effort)) if stages.judge else second_stage.epochs(stages.fit)
        )
    if task.align and task.train != "both":
        settings["trained"] = task.train
    if task.frame_loss is not None:
        settings |= {"loss": task.frame_loss.name, "lossWeights": task.frame_loss.weights}
    return {**settings, **choices(result.notes)}


def with_choices(result: SearchResult, notes: Sequence[str]) -> SearchResult:
    """Return a result with further notes, and these among its settings."""
    notes = (*result.notes, *notes)
    others = {key: value for key, value in result.settings.items() if not key.startswith("choice")}
    return replace(result, notes=notes, settings={**others, **choices(notes)})


def choices(notes: Sequence[str]) -> Settings:
    """Return choices that were made after a search, in words, as settings."""
    return {
        f"choice{number:02}" if len(notes) > 9 else f"choice{number}": note
        for number, note in enumerate(notes, 1)
    }
