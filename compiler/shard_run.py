"""One job's shard of a compile's reference runs: `budc compile … --shard 2/8 --out FOLDER`.

The folder holds a journal for each job, `shard-2-of-8.<fingerprint>`. What its measurements depend on lies beside it,
so that a compile which differs is told in what. `budc.compiler.shard_merge` takes them from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budc.compiler.compile_plan import CompilePlan
from budc.compiler.compile_task import compile_task, measured_settings
from budc.compiler.evaluation.reference import latent_chunks
from budc.compiler.evaluation.report import HELD_OUT_RUN
from budc.compiler.loaded_target import LoadedTarget, load_target
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.reference_run import reference_chunks
from budc.compiler.selection.network import CALIBRATION_RUN, batched
from budc.compiler.selection.stages import stages_of
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.shard import Shard
from budc.compiler.storage.tensors import chunk_spans
from budc.schema import canonical
from budc.schema.canonical import digest
from budc.schema.files import make_folder, write_atomic
from budc.schema.policy import SamplerBinding

ABOUT: Final = "about.json"
"""File in a shard's journal: what its measurements depend on."""
ENDED: Final = "shard"
"""Record of a shard that is complete: which one it is."""


@dataclass(frozen=True)
class ShardResult:
    """What a job has written: its journal's folder, and the samples of both prompt sets that it ran."""

    folder: Path
    samples: int


def compile_shard(plan: CompilePlan, shard: Shard, folder: Path) -> ShardResult:
    """Make a shard's part of a compile's reference runs, resumed where an earlier call was killed.

    Raises:
        BudcError: see `load_target` and `reference_run`; JournalBusy: the same shard is being computed.
    """
    loaded = load_target(plan.target)
    sampler = loaded.model.sampler(plan.steps)
    about = loaded.measured_with(measured_settings(plan, sampler))
    fingerprint = digest(about)
    make_folder(folder)
    own = folder / f"shard-{shard.number}-of-{shard.jobs}.{fingerprint[7:19]}"
    with Journal(own, fingerprint, shard.jobs) as journal:
        write_atomic(own / ABOUT, canonical.encode(about))
        samples = _calibration(plan, loaded, sampler, journal, shard)
        samples += _held_out(loaded, sampler, journal, shard)
        if journal.get(ENDED, str) is None:
            journal.put(ENDED, str(shard))
    return ShardResult(own, samples)


def _calibration(
    plan: CompilePlan, loaded: LoadedTarget, sampler: SamplerBinding, journal: Journal, shard: Shard
) -> int:
    task = compile_task(plan, loaded, sampler, plan.largest)
    stages = stages_of(task.search, task.effort, task.nfe, len(task.conditions), arbitrates=task.arbitrates)
    network = batched(task, task.conditions.rows(stages.chosen(len(task.conditions))), journal)
    chunks = reference_chunks(
        network,
        task.schedule.linear_form(),
        journal,
        CALIBRATION_RUN,
        task.recorded,
        chunk_spans(journal, network.samples, shard),
    )
    return sum(len(chunk.tensors["latents"]) for chunk in chunks)


def _held_out(loaded: LoadedTarget, sampler: SamplerBinding, journal: Journal, shard: Shard) -> int:
    policy = full_policy(sampler.steps, loaded.model.profile.branches)
    held_out = loaded.conditions.held_out
    spans = chunk_spans(journal, len(held_out), shard)
    chunks = latent_chunks(loaded.rollout(journal), policy, sampler, held_out, journal, HELD_OUT_RUN, spans)
    return sum(len(chunk.tensors["latents"]) for chunk in chunks)
