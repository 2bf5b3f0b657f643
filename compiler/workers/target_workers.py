"""The workers of a compile or a transfer: what its search and its report ask of a pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

from budc.compiler.cluster import Cluster
from budc.compiler.loaded_target import LoadedTarget
from budc.compiler.rollouts.workers import FittedCandidate
from budc.compiler.search.space import Candidate
from budc.compiler.selection.network import CALIBRATION_RUN
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import Records, Span
from budc.compiler.target import Target
from budc.compiler.workers.pool import Pool, worker_pool
from budc.compiler.workers.report_tasks import PoolReport, fitting_batch
from budc.compiler.workers.target_tasks import (
    HELD_OUT,
    Arbitrate,
    LoadWeights,
    PrepareSearch,
    Recording,
    ReferenceChunk,
    RollOut,
)
from budc.runtimes.sampling.devices import find_device
from budc.schema.policy import Policy

__all__ = ["Hired", "Recording", "hire", "target_pool"]


class Hired(NamedTuple):
    """The workers of a search and of a report; None where this process computes alone."""

    search: PoolSearch | None = None
    report: PoolReport | None = None


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
    # A worker's accelerator is the one that Ray gives it.
    target = replace(loaded.target, device=pool.device.type, folder=loaded.target.folder.absolute())
    pool.set_up(LoadWeights(target, loaded.binding, loaded.components))
    given = {field.name: getattr(task, field.name) for field in fields(task) if field.name != "denoiser"}
    held_out, folder = loaded.conditions.held_out, journal.folder.absolute()
    pool.set_up(PrepareSearch(given, recording or Recording(), held_out, folder, journal.jobs))
    return Hired(PoolSearch(pool, journal), PoolReport(pool, journal, HELD_OUT))


class PoolSearch:
    """The workers of a search, see `budc.compiler.rollouts.workers.SearchWorkers`."""

    def __init__(self, pool: Pool, journal: Journal) -> None:
        self._pool, self._journal = pool, journal

    def reference_chunks(self, spans: Sequence[Span]) -> Iterator[Records]:
        """Make these chunks of the reference run."""
        known = fitting_batch(self._journal)
        for _, records in self._pool.run([ReferenceChunk(known, span) for span in spans]):
            yield records

    def roll_out(
        self, prompts: int, candidates: Sequence[Candidate]
    ) -> Iterator[tuple[int, FittedCandidate]]:
        """Roll out candidates on the first `prompts`."""
        reference = self._reference()
        return self._pool.run([RollOut(reference, prompts, candidate) for candidate in candidates])

    def arbitrate(self, policies: Mapping[str, Policy]) -> Iterator[Records]:
        """Measure policies on the prompts that judge."""
        reference = self._reference()
        tasks = [Arbitrate(reference, label, policy) for label, policy in policies.items()]
        for _, records in self._pool.run(tasks):
            yield records

    def _reference(self) -> Records:
        return {
            key: value
            for key, value in self._journal.records.items()
            if key == "batch" or key.startswith(f"{CALIBRATION_RUN} ")
        }
