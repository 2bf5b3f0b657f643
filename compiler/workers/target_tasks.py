"""Tasks of a compile: chunks of the reference run, rollouts of candidates, policies that are arbitrated.

A worker loads the model once, by its path, and refuses files with other digests than the compiling process found.
Encoded prompts come through Ray's object store; chunks of the reference run are read from the journal's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.loaded_target import LoadedTarget, load_target
from budc.compiler.rollouts.reference_run import reference_chunks
from budc.compiler.rollouts.workers import FittedCandidate
from budc.compiler.search.space import Candidate
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.network import CALIBRATION_RUN, batched
from budc.compiler.selection.stages import stages_of
from budc.compiler.selection.task import Task
from budc.compiler.storage.tensors import Records, Span
from budc.compiler.storage.worker_journal import WorkerJournal
from budc.compiler.target import Target
from budc.compiler.workers.report_tasks import ReportSetting
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import ModelBinding, Payload, Policy

LOADED, FINDER, HELD_OUT, SEARCH = "loaded", "finder", "held-out", "search"
"""What a worker's state is called."""


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


class Recording(NamedTuple):
    """What the denoiser of a search records (`LoadedTarget.recording`), and how many first blocks the report runs."""

    payload: Payload = "trunk-residual"
    first_blocks: int = 0
    report_first_blocks: int = 0


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
        state[SEARCH] = (
            Task(denoiser=loaded.recording(self.recording.payload, self.recording.first_blocks), **self.task),
            self,
        )
        state[HELD_OUT] = ReportSetting(loaded.model, self.held_out, self.recording.report_first_blocks)


@dataclass(frozen=True)
class ReferenceChunk:
    """Run every step of one chunk of calibration prompts."""

    known: Records
    span: Span

    def __call__(self, state: dict[str, Any]) -> Records:
        """Return the records of the chunk, which is in the folder then."""
        task, search = state[SEARCH]
        journal = WorkerJournal(search.folder, self.known, search.jobs)
        stages = stages_of(
            task.search, task.effort, task.nfe, len(task.conditions), arbitrates=task.arbitrates
        )
        network = batched(task, task.conditions.rows(stages.chosen(len(task.conditions))), journal)
        form = task.schedule.linear_form()
        for _ in reference_chunks(network, form, journal, CALIBRATION_RUN, task.recorded, [self.span]):
            pass
        return journal.written


@dataclass(frozen=True)
class RollOut:
    """Roll out one candidate on the first prompts. `reference` are the records of the whole reference run."""

    reference: Records
    prompts: int
    candidate: Candidate

    def __call__(self, state: dict[str, Any]) -> FittedCandidate:
        """Return errors and coefficients."""
        tree = _finder(state, self.reference).tree(self.prompts)
        (rollout,) = tree.roll_out([self.candidate])
        return FittedCandidate(rollout.errors, rollout.rows)


@dataclass(frozen=True)
class Arbitrate:
    """Measure a policy on the prompts that judge."""

    reference: Records
    label: str
    policy: Policy

    def __call__(self, state: dict[str, Any]) -> Records:
        """Return the record of its loss."""
        finder = _finder(state, self.reference)
        journal = WorkerJournal(finder.journal.folder, finder.journal.records)
        finder.arbiter(paired=False, journal=journal).loss(self.label, self.policy, finder.form)
        return journal.written


def _finder(state: dict[str, Any], reference: Records) -> Finder:
    """Return the finder of a worker, which reads the reference run once."""
    if FINDER not in state:
        task, search = state[SEARCH]
        state[FINDER] = Finder(task, WorkerJournal(search.folder, reference, search.jobs))
    finder: Finder = state[FINDER]
    return finder
