"""Tasks of a search: chunks of its reference run, rollouts of candidates, policies that are arbitrated.

Encoded prompts come through Ray's object store, once. Chunks of the reference run are written into the journal's folder
by whoever makes them, and every worker that rolls out candidates reads them there, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from budc.compiler.fitting.gauss_newton import NormalEquations
from budc.compiler.rollouts.reference_run import reference_chunks
from budc.compiler.rollouts.workers import FittedCandidate, PromptSpan
from budc.compiler.search.space import Candidate
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.network import CALIBRATION_RUN, batched
from budc.compiler.selection.stages import stages_of
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import Records, Span
from budc.compiler.storage.worker_journal import WorkerJournal
from budc.compiler.workers.pool import Pool
from budc.schema.policy import Policy

SEARCH, CALIBRATION = "search", "calibration"
"""What a worker's state is called."""


class WorkerSearch(NamedTuple):
    """What a worker has of a search: its task, and where chunks lie, cut for so many jobs, under a label."""

    task: Task
    folder: Path
    jobs: int
    label: str = CALIBRATION_RUN


@dataclass(frozen=True)
class ReferenceChunk:
    """Run every step of one chunk of calibration prompts."""

    known: Records
    span: Span

    def __call__(self, state: dict[str, Any]) -> Records:
        """Return the records of the chunk, which is in the folder then."""
        search: WorkerSearch = state[SEARCH]
        task, prompts = search.task, len(search.task.conditions)
        journal = WorkerJournal(search.folder, self.known, search.jobs)
        stages = stages_of(task.search, task.effort, task.nfe, prompts, arbitrates=task.arbitrates)
        network = batched(task, task.conditions.rows(stages.chosen(prompts)), journal)
        form = task.schedule.linear_form()
        for _ in reference_chunks(network, form, journal, search.label, task.recorded, [self.span]):
            pass
        return journal.written


@dataclass(frozen=True)
class RollOut:
    """Roll out one candidate on some prompts. `reference` are the records of the whole reference run."""

    reference: Records
    span: PromptSpan
    candidate: Candidate

    def __call__(self, state: dict[str, Any]) -> FittedCandidate:
        """Return errors and coefficients."""
        tree = _calibration(state, self.reference).tree(self.span)
        (rollout,) = tree.roll_out([self.candidate])
        return FittedCandidate(rollout.errors, rollout.rows)


@dataclass(frozen=True)
class Measure:
    """Measure how final latents of some prompts change with a policy's coefficients."""

    reference: Records
    span: PromptSpan
    policy: Policy

    def __call__(self, state: dict[str, Any]) -> tuple[NormalEquations, ...]:
        """Return the normal equations of each prompt."""
        return _calibration(state, self.reference).refiner.measure(self.policy, self.span)


@dataclass(frozen=True)
class Arbitrate:
    """Measure a policy on the prompts that judge."""

    reference: Records
    label: str
    policy: Policy

    def __call__(self, state: dict[str, Any]) -> Records:
        """Return the record of its loss."""
        calibration = _calibration(state, self.reference)
        journal = WorkerJournal(calibration.journal.folder, calibration.journal.records)
        calibration.arbiter(paired=False, journal=journal).loss(self.label, self.policy, calibration.form)
        return journal.written


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
        self, spans: Sequence[PromptSpan], candidates: Sequence[Candidate]
    ) -> Iterator[tuple[int, FittedCandidate]]:
        """Roll out candidates, each on its prompts."""
        reference = self._reference()
        return self._pool.run([RollOut(reference, *given) for given in zip(spans, candidates, strict=True)])

    def measure(
        self, policy: Policy, spans: Sequence[PromptSpan]
    ) -> Iterator[tuple[int, tuple[NormalEquations, ...]]]:
        """Measure how final latents change with a policy's coefficients, on some prompts each."""
        reference = self._reference()
        return self._pool.run([Measure(reference, span, policy) for span in spans])

    def arbitrate(self, policies: Mapping[str, Policy]) -> Iterator[Records]:
        """Measure policies on the prompts that judge."""
        reference = self._reference()
        tasks = [Arbitrate(reference, label, policy) for label, policy in policies.items()]
        for _, records in self._pool.run(tasks):
            yield records

    def _reference(self) -> Records:
        return fitting_batch(self._journal) | {
            key: value
            for key, value in self._journal.records.items()
            if key.startswith(f"{CALIBRATION_RUN} ")
        }


def fitting_batch(journal: Journal) -> dict[str, object]:
    """Return the record of the batch that fits the device, if there is one."""
    return {key: value for key, value in journal.records.items() if key == "batch"}


def _calibration(state: dict[str, Any], reference: Records) -> Calibration:
    """Return the calibration prompts of a worker, which reads the reference run once."""
    if CALIBRATION not in state:
        search: WorkerSearch = state[SEARCH]
        state[CALIBRATION] = Calibration(search.task, WorkerJournal(search.folder, reference, search.jobs))
    calibration: Calibration = state[CALIBRATION]
    return calibration
