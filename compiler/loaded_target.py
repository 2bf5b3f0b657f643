"""A target whose model is loaded: digests, journal, tasks and report, for compile and transfer alike."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec
from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.emit import versions
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import encode_samples, prompt_set, reference_set
from budc.compiler.evaluation.report import HELD_OUT_RUN, Evaluator
from budc.compiler.models.adapters import with_adapters
from budc.compiler.models.binding import model_binding, with_quantization
from budc.compiler.models.denoiser import model_denoiser
from budc.compiler.models.folder import component_digests
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.rollouts.workers import ReportWorkers
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.compiler.target import Target
from budc.policies.profile import ModelProfile
from budc.policies.published_masks import masks_for
from budc.progress import hashing, stage
from budc.runtimes.sampling.devices import device_name, find_device
from budc.schema.canonical import digest
from budc.schema.digest_cache import DigestCache
from budc.schema.plural import counted
from budc.schema.policy import ModelBinding, Payload, PromptSet, SamplerBinding
from budc.schema.printable import printable


class EncodedSets(NamedTuple):
    """Both prompt sets of a target as rollouts start from them."""

    calibration: Conditioning
    held_out: Conditioning


@dataclass(frozen=True)
class LoadedTarget:
    """A target, its model, what ties a policy to the model's files, and the digests of the files beside these."""

    target: Target
    model: LoadedModel
    binding: ModelBinding
    components: Mapping[str, str]

    def measured_with(self, settings: Mapping[str, object]) -> dict[str, object]:
        """Return all that a measurement depends on, `settings` among it; name, key and output path are not."""
        return {
            **settings,
            "profile": msgspec.to_builtins(self.target.profile),
            "states": self.target.states,
            "samples": [prompt_set(samples).digest for samples in self.target.samples],
            "denoisers": msgspec.to_builtins(self.binding),
            "components": dict(self.components),
            "versions": versions(),
            "device": device_name(self.model.device),
        }

    @contextmanager
    def journal(self, out: Path, settings: Mapping[str, object], jobs: int = 1) -> Iterator[Journal]:
        """Open the journal beside `out` that belongs to this target and these settings.

        It is named after all that a measurement depends on. Remove it with `discard` once the artifact stands. `jobs`
        is that of `Journal`.
        """
        fingerprint = digest(self.measured_with(settings))
        with Journal(out.parent / f".{out.name}.{fingerprint[7:19]}", fingerprint, jobs) as journal:
            if journal.records:
                print(
                    f"resuming: {len(journal.records)} measurements are in {journal.folder}", file=sys.stderr
                )
            yield journal

    def with_profile(self, profile: ModelProfile) -> LoadedTarget:
        """Return this target with the loaded model under another profile, such as one of another size."""
        return replace(
            self, target=replace(self.target, profile=profile), model=replace(self.model, profile=profile)
        )

    @cached_property
    def denoiser(self) -> Denoiser:
        """The model's denoiser, or its experts as one."""
        return model_denoiser(self.model)

    @cached_property
    def decode(self) -> Callable[[Tensor], Tensor]:
        """Final latents of one sample (1, ...) to frames (1, 3, frames, rows, columns) in 0..1."""
        return self.model.adapter.decoder(self.model.folder, self.target.profile, self.model.device)

    def recording(self, payload: Payload, first_blocks: int) -> Denoiser:
        """Return the denoiser that records a payload, see `ModelDenoiser`.

        The default one has the trunk residual and the velocity.
        """
        if payload != "trunk-output" and not first_blocks:
            return self.denoiser
        return model_denoiser(self.model, payload, first_blocks)

    @cached_property
    def conditions(self) -> EncodedSets:
        """All prompts, encoded, with their noise: both sets at once, so that the encoders are gone before a denoiser is
        loaded.
        """
        stage("encode", f"{counted(sum(map(len, self.target.samples)), 'prompt')}")
        return EncodedSets(*(encode_samples(self.model, samples) for samples in self.target.samples))

    def calibration_set(self) -> PromptSet:
        """Name the calibration prompts by content."""
        return prompt_set(self.target.samples.calibration)

    def task(self, sampler: SamplerBinding, nfe: int, seed: int) -> Task:
        """Return the task of a default search for a policy of `nfe` evaluations on a sampler's schedule."""
        return Task(
            denoiser=self.denoiser,
            schedule=self.schedule(sampler),
            conditions=self.conditions.calibration,
            nfe=nfe,
            annealing=self.target.profile.search,
            seed=seed,
            published_masks=masks_for(self.target.profile, sampler.steps, nfe),
            batch=self.model.adapter.batch,
            states=self.target.states,
        )

    def schedule(self, sampler: SamplerBinding) -> NoiseSchedule:
        """Return a sampler's schedule."""
        return NoiseSchedule.of(self.model.scheduler, sampler.sigmas, sampler.timesteps)

    def rollout(
        self, journal: Journal, first_blocks: int = 0, workers: ReportWorkers | None = None
    ) -> PipelineRollout:
        """Return the pipeline's own rollout; the journal remembers the batch that fitted.

        `first_blocks` run at reused steps too, see `Trunk`.
        """
        return PipelineRollout(
            self.model,
            journal.get("batch", int, lambda size: size >= 1),
            halved=lambda batch: journal.put("batch", batch),
            first_blocks=first_blocks,
            workers=workers,
        )

    def evaluator(
        self,
        sampler: SamplerBinding,
        journal: Journal,
        first_blocks: int = 0,
        workers: ReportWorkers | None = None,
    ) -> Evaluator:
        """Run every step of `sampler` on the held-out prompts, for policies to be measured against.

        `first_blocks` and `workers` are those of `PipelineRollout`.
        """
        rollout = self.rollout(journal, first_blocks, workers)
        held_out = reference_set(
            rollout,
            sampler,
            self.target.samples.held_out,
            journal,
            HELD_OUT_RUN,
            self.conditions.held_out,
        )
        return Evaluator(rollout, sampler, held_out, journal, self.target.frames)


def load_target(target: Target) -> LoadedTarget:
    """Hash a target's files and load its model.

    Raises:
        UsageError: there is no such device.
        BudcError: see `model_binding`, `load_model` and `with_adapters`.
    """
    profile, folder = target.profile, target.folder
    device = find_device(target.device)
    if device.type == "cpu" and not profile.embedded:
        print(f"no accelerator: {profile.title} will run on the CPU, which takes days", file=sys.stderr)
    digests = DigestCache.of_user(watch=hashing, rehash=target.rehash)
    stage("hash", printable(f"the files of {folder}"))
    binding = model_binding(profile, folder, digests)
    stage("load", printable(profile.title))
    model = load_model(profile, folder, device, target.offload)
    if profile.quantization:
        binding = with_quantization(binding, profile.quantization, model.denoisers)
    if target.adapters:
        binding = with_adapters(model, binding, target.adapters)
    return LoadedTarget(target, model, binding, component_digests(profile, folder, digests))
