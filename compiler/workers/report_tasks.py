"""Tasks of a report: chunks of held-out prompts under a policy, and frames of them.

Every worker has the model, and the encoded prompts of each setting that is reported, by a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import latent_chunks
from budc.compiler.evaluation.report import frame_levels
from budc.compiler.models.model import LoadedModel
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import Records, Span
from budc.compiler.storage.worker_journal import WorkerJournal
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.search_tasks import fitting_batch
from budc.schema.policy import Policy, SamplerBinding


@dataclass(frozen=True)
class ReportSetting:
    """What a worker needs of one setting: its model and its encoded prompts."""

    model: LoadedModel
    conditions: Conditioning
    first_blocks: int = 0

    def rollout(self, journal: Journal) -> PipelineRollout:
        """Return the pipeline's own rollout."""
        return PipelineRollout(
            self.model,
            journal.get("batch", int, lambda size: size >= 1),
            halved=lambda batch: journal.put("batch", batch),
            first_blocks=self.first_blocks,
        )


@dataclass(frozen=True)
class LatentChunk:
    """Roll out a policy on one chunk of prompts."""

    setting: str
    folder: Path
    known: Records
    label: str
    policy: Policy
    sampler: SamplerBinding
    span: Span

    def __call__(self, state: dict[str, Any]) -> Records:
        """Return the records of the chunk, which is in the folder then."""
        setting: ReportSetting = state[self.setting]
        journal = WorkerJournal(self.folder, self.known)
        chunks = latent_chunks(
            setting.rollout(journal),
            self.policy,
            self.sampler,
            setting.conditions,
            journal,
            self.label,
            [self.span],
        )
        for _ in chunks:
            pass
        return journal.written


@dataclass(frozen=True)
class FrameLevels:
    """Decode some samples and measure their PSNR; `latents` and `reference` are theirs alone."""

    setting: str
    folder: Path
    label: str
    first: int
    latents: Mapping[str, Tensor]
    reference: Tensor

    def __call__(self, state: dict[str, Any]) -> Records:
        """Return the records of the samples."""
        setting: ReportSetting = state[self.setting]
        journal = WorkerJournal(self.folder, {})
        frame_levels(setting.model, self.latents, self.reference, journal, self.label, first=self.first)
        return journal.written


class PoolReport:
    """The workers of a report, see `budc.compiler.rollouts.workers.ReportWorkers`."""

    def __init__(self, pool: Pool, journal: Journal, setting: str) -> None:
        self._pool, self._journal, self._setting = pool, journal, setting

    def latents(
        self, label: str, policy: Policy, sampler: SamplerBinding, spans: Sequence[Span]
    ) -> Iterator[Records]:
        """Roll a policy out, and keep chunks of its final latents under a label."""
        known, folder = fitting_batch(self._journal), self._journal.folder.absolute()
        tasks = [LatentChunk(self._setting, folder, known, label, policy, sampler, span) for span in spans]
        for _, records in self._pool.run(tasks):
            yield records

    def frames(
        self, label: str, latents: Mapping[str, Tensor], reference: Tensor, missing: Sequence[int]
    ) -> Iterator[Records]:
        """Measure the frames of these samples."""
        folder = self._journal.folder.absolute()
        tasks = [
            FrameLevels(
                self._setting,
                folder,
                label,
                index,
                {name: final[index : index + 1].clone() for name, final in latents.items()},
                reference[index : index + 1].clone(),
            )
            for index in missing
        ]
        for _, records in self._pool.run(tasks):
            yield records
