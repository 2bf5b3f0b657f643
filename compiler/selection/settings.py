"""The settings of a search as an artifact lists them."""

from __future__ import annotations

import msgspec

from budc.compiler.search.joint import rollout_limit
from budc.compiler.selection.alignment import epochs
from budc.compiler.selection.split import SEARCH_SHARE
from budc.compiler.selection.task import SearchResult, Settings, Task


def settings_of(task: Task, result: SearchResult) -> Settings:
    """Return what a search was run with, its loss on the prompts that it saw, and the choices made after it."""
    settings: dict[str, bool | int | float | str] = {
        "calibrationLoss": result.loss,
        "aligned": result.aligned,
    }
    if task.search == "paper":
        settings |= msgspec.to_builtins(task.annealing)
    if task.search == "joint":
        settings |= {
            "allowance": rollout_limit(task.schedule.steps, task.nfe),
            "searchShare": SEARCH_SHARE,
            "branches": "separate" if task.separate else "together",
        }
    if task.align:
        settings["epochs"] = epochs(task.nfe)
    return settings | {f"choice{number}": note for number, note in enumerate(result.notes, 1)}
