"""The workers of a compile or a transfer: each loads the target, and is given the task of the search and the prompts.

Weights are loaded by their path, and refused where their digests are not those that the compiling process found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from budc.compiler.cluster import Cluster
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.loaded_target import LoadedTarget, load_target
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.compiler.target import Target
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.report_tasks import PoolReport, ReportSetting
from budc.compiler.workers.search_tasks import SEARCH, PoolSearch, WorkerSearch
from budc.compiler.workers.worker_pool import worker_pool
from budc.runtimes.sampling.devices import find_device
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import ModelBinding, Payload

LOADED, HELD_OUT = "loaded", "held-out"
"""What a worker's state is called."""


class Hired(NamedTuple):
    """The workers of a search and of a report; None where this process computes alone."""

    search: PoolSearch | None = None
    report: PoolReport | None = None


class Recording(NamedTuple):
    """What the denoiser of a search records (`LoadedTarget.recording`), and how many first blocks the report runs."""

    payload: Payload = "trunk-residual"
    first_blocks: int = 0
    report_first_blocks: int = 0


@dataclass(frozen=True)
class LoadWeights:
    """Load the model, and compare its files with those of the compiling process."""

    target: Target
    binding: ModelBinding
    components: Mapping[str, str]

    def __call__(self, state: dict[str, Any]) -> None:
        """Put the loaded target into the state. Raises WeightsMismatch, see also `load_target`."""
        loaded = load_target(self.target)
        if loaded.binding != self.binding or dict(loaded.components) != dict(self.components):
            raise WeightsMismatch(
                f"{self.target.folder}: the model's files are not those of the machine that compiles",
                remedy="copy the same revision of the model to every node, under the same path",
            )
        state[LOADED] = loaded


@dataclass(frozen=True)
class PrepareSearch:
    """Take the task of a search, but for its denoiser, and the held-out prompts."""

    task: Mapping[str, Any]
    recording: Recording
    held_out: Conditioning
    folder: Path
    jobs: int

    def __call__(self, state: dict[str, Any]) -> None:
        """Put the task, and what a report needs, into the state."""
        loaded: LoadedTarget = state[LOADED]
        denoiser = loaded.recording(self.recording.payload, self.recording.first_blocks)
        state[SEARCH] = WorkerSearch(Task(denoiser=denoiser, **self.task), self.folder, self.jobs)
        state[HELD_OUT] = ReportSetting(loaded.model, self.held_out, self.recording.report_first_blocks)


@contextmanager
def target_pool(cluster: Cluster | None, target: Target, out: Path) -> Iterator[Pool | None]:
    """Start a cluster's workers for a target, whose journal will be beside `out`; None where no cluster is asked for.

    Raises:
        BudcError: see `worker_pool`.
    """
    if cluster is None:
        yield None
        return
    with worker_pool(cluster, find_device(target.device), out.parent) as pool:
        yield pool


def hire(
    pool: Pool | None,
    loaded: LoadedTarget,
    task: Task,
    journal: Journal,
    recording: Recording | None = None,
) -> Hired:
    """Let the workers load the model, and give them a task and both prompt sets.

    Raises:
        BudcError: see `LoadWeights` and `Pool.set_up`.
    """
    if pool is None:
        return Hired()
    for setup in setups(loaded, task, journal, recording):
        pool.set_up(setup)
    return Hired(PoolSearch(pool, journal), PoolReport(pool, journal, HELD_OUT))


def setups(
    loaded: LoadedTarget, task: Task, journal: Journal, recording: Recording | None = None
) -> tuple[LoadWeights, PrepareSearch]:
    """Return what a worker does before its tasks."""
    # A worker's accelerator is the one that Ray gives it.
    target = replace(loaded.target, device=loaded.model.device.type, folder=loaded.target.folder.absolute())
    given = {field.name: getattr(task, field.name) for field in fields(task) if field.name != "denoiser"}
    held_out, folder = loaded.conditions.held_out, journal.folder.absolute()
    return (
        LoadWeights(target, loaded.binding, loaded.components),
        PrepareSearch(given, recording or Recording(), held_out, folder, journal.jobs),
    )
