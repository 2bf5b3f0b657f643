"""The evaluation: policies and rivals in every setting that was asked for, resumed where an earlier call was killed."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import msgspec

from budc.compiler.comparison.changes import CALIBRATED, Change
from budc.compiler.comparison.frame_values import Values, frame_values
from budc.compiler.comparison.ipndm2m import IPNDM2MScheduler
from budc.compiler.comparison.rivals import RIVALS
from budc.compiler.comparison.setting_run import Method, Rolled, SettingRun
from budc.compiler.emit import output_shape, versions
from budc.compiler.evaluate_request import EvaluationPlan, settings_of
from budc.compiler.evaluation.reference import prompt_set
from budc.compiler.metrics import FrameMetric, NotMeasured, load_metrics
from budc.compiler.metrics.summary import summary
from budc.compiler.models.adapters import with_adapters
from budc.compiler.models.binding import model_binding
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.storage.journal import Journal
from budc.policies.profile import ModelProfile
from budc.progress import hashing
from budc.runtimes.diffusers.network_config import library_defaults
from budc.runtimes.sampling.devices import device_name, find_device
from budc.runtimes.sampling.loading import scheduler_class
from budc.runtimes.sampling.scheduler_choice import deployed_scheduler
from budc.schema.artifact import Artifact
from budc.schema.canonical import digest
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import CalibrationMismatch
from budc.schema.evaluation import (
    EVALUATION_VERSION,
    EvaluationDocument,
    Latency,
    MethodResult,
    NotMeasuredNote,
    SettingResult,
)
from budc.schema.model_files import accepted_files
from budc.schema.policy import ModelBinding
from budc.schema.report_names import FEWER_STEPS, FULL, LATENT_MSE
from budc.schema.timestamps import issue_time

POLICY = "policy"
"""What a policy is called in its own evaluation."""


class Measured(NamedTuple):
    """A method in one setting: its row, and the budget that it was fitted to; None for the policies themselves."""

    result: MethodResult
    nfe: int | None


@dataclass(frozen=True)
class Evaluation:
    """The model of an evaluation, loaded, and the metrics that can be measured."""

    plan: EvaluationPlan
    model: LoadedModel
    binding: ModelBinding
    journal: Journal
    metrics: Mapping[str, FrameMetric]

    def measure(self, change: Change) -> tuple[SettingResult, Mapping[str, Measured]]:
        """Measure every method in one setting; return the setting, without methods, and these by their keys."""
        plan, model = self.plan, self._changed(change)
        run = SettingRun(change, model, plan.steps, plan.samples, self.journal)
        methods, budgets = self._methods(run)
        rolled = {key: run.roll_out(key, method) for key, method in methods.items()}
        latencies = run.latencies(methods, plan.repeats) if plan.repeats else {}
        latents = {key: item.latents for key, item in rolled.items()}
        prompts = [sample.prompt for sample in run.samples]
        values = frame_values(
            model, latents, run.held_out.latents, prompts, self.metrics, self.journal, change.name
        )
        results = {
            key: Measured(self._row(key, item, run, values, latencies.get(key)), budgets[key])
            for key, item in rolled.items()
        }
        setting = SettingResult(
            name=change.name,
            scheduler=run.full.scheduler,
            steps=run.full.steps,
            guidance=run.full.guidance,
            shape=output_shape(change.profile),
            prompts=prompt_set(run.samples),
            methods=[],
        )
        return setting, results

    def _methods(self, run: SettingRun) -> tuple[dict[str, Method], dict[str, int | None]]:
        plan, methods, budgets = self.plan, {FULL: run.full_method()}, dict[str, int | None]({FULL: None})
        for artifact in plan.policies:
            method = run.of_policy(artifact.document, self.model)
            if run.change.name == CALIBRATED:
                method = replace(method, sampler=artifact.document.sampler)
            methods[artifact.policy_id], budgets[artifact.policy_id] = method, None
        for nfe in sorted({artifact.document.budget.nfe for artifact in plan.policies}):
            for name in plan.against:
                method = self._rival(name, nfe, run)
                if method is not None:
                    methods[f"{name} {nfe}"], budgets[f"{name} {nfe}"] = method, nfe
        return methods, budgets

    def _rival(self, name: str, nfe: int, run: SettingRun) -> Method | None:
        if name == FEWER_STEPS:
            return run.fewer_steps(nfe)
        rival = RIVALS[name]
        fitted = run.fitted(name, nfe, partial(_fit, name, self.plan.seed))
        return None if fitted is None else Method(rival.title, fitted, run.full)

    def _row(
        self,
        key: str,
        item: Rolled,
        run: SettingRun,
        values: Sequence[Values],
        latency: Latency | None,
    ) -> MethodResult:
        errors = latent_errors(item.latents, run.held_out.latents)
        samples = {LATENT_MSE: errors}
        metrics = [latent_metric(errors)]
        for kind in self.plan.metrics:
            if kind.name in self.metrics:
                samples[kind.name] = [sample[key][kind.name] for sample in values]
                metrics.append(summary(kind, samples[kind.name]))
        nfe = statistics.fmean(item.nfe)
        return MethodResult(
            name=key.split(" ")[0] if key in (FULL,) or " " in key else POLICY,
            title=item.method.title,
            nfe=nfe,
            forwards=nfe * len(self.plan.profile.branches),
            fitting_forwards=item.method.fitted.forwards,
            metrics=metrics,
            samples=samples,
            latency=latency,
        )

    def _changed(self, change: Change) -> LoadedModel:
        """Return the model in a setting; one with adapters is loaded anew."""
        if change.adapters:
            loaded = load_model(
                change.profile, self.plan.folder, self.model.device, self.plan.offload
            )
            with_adapters(loaded, self.binding, change.adapters)
            return loaded
        model = replace(self.model, profile=change.profile)
        if change.scheduler is None:
            return model
        return replace(model, scheduler=changed_scheduler(self.model, change.scheduler))


def changed_scheduler(model: LoadedModel, class_name: str) -> object:
    """Return a scheduler of another class with the shift of the model's own."""
    own = {**model.scheduler.config, "_class_name": type(model.scheduler).__name__}
    if class_name != IPNDM2MScheduler.__name__:
        return deployed_scheduler(scheduler_class(class_name, model.profile.name), own, {})
    euler = deployed_scheduler(
        scheduler_class("FlowMatchEulerDiscreteScheduler", model.profile.name), own, {}
    )
    return IPNDM2MScheduler.from_config(euler.config)


def evaluate(plan: EvaluationPlan) -> list[EvaluationDocument]:
    """Measure the policies of a plan; return an evaluation of each.

    Raises:
        WeightsMissing, WeightsMismatch, UnsafeWeights: the folder is not what a policy was made for.
        CalibrationMismatch: its scheduler has other settings.
        DeviceMemory: see `PipelineRollout` and `frame_values`.
    """
    device = find_device(plan.device)
    digests = DigestCache.of_user(watch=hashing, rehash=plan.rehash)
    for artifact in plan.policies:
        accepted_files(plan.folder, artifact.document.model, digests, library_defaults)
    binding = model_binding(plan.profile, plan.folder, digests)
    model = load_model(plan.profile, plan.folder, device, plan.offload)
    _check_samplers(plan, model)
    metrics, missing = load_metrics(
        plan.metrics, plan.metric_weights, device, (plan.profile.height, plan.profile.width)
    )
    with _journal(plan, binding, device_name(device)) as journal:
        evaluation = Evaluation(plan, model, binding, journal, metrics)
        measured = [evaluation.measure(change) for change in plan.settings]
    return [
        EvaluationDocument(
            schema_version=EVALUATION_VERSION,
            policy=artifact.policy_id,
            policy_name=artifact.document.name,
            issued_at=issue_time(),
            device=device_name(device),
            versions=versions(),
            settings=[
                msgspec.structs.replace(setting, methods=_methods_beside(artifact, results))
                for setting, results in measured
            ],
            not_measured=[_note(item) for item in missing],
        )
        for artifact in plan.policies
    ]


def _fit(name: str, seed: int, setting: object, nfe: int, folder: object) -> object:
    return RIVALS[name].fit(setting, nfe, seed, folder)


def _methods_beside(artifact: Artifact, results: Mapping[str, Measured]) -> list[MethodResult]:
    """Return the policy, the rivals at its budget, and the full run."""
    nfe = artifact.document.budget.nfe
    rivals = [measured.result for measured in results.values() if measured.nfe == nfe]
    return [results[artifact.policy_id].result, *rivals, results[FULL].result]


def _note(item: NotMeasured) -> NotMeasuredNote:
    return NotMeasuredNote(name=item.name, reason=f"{item.reason}; {item.remedy}"[:1024])


def _check_samplers(plan: EvaluationPlan, model: LoadedModel) -> None:
    for artifact in plan.policies:
        bound, own = artifact.document.sampler, model.sampler(plan.steps)
        if bound.config_digest != own.config_digest:
            raise CalibrationMismatch(
                f"{artifact.document.name} was calibrated on a {bound.scheduler} with other settings than the one in "
                f"{plan.folder}",
                remedy="give the folder that it was compiled for, or --model PROFILE.toml with its scheduler's settings",
            )


@contextmanager
def _journal(plan: EvaluationPlan, binding: ModelBinding, device: str) -> Iterator[Journal]:
    """Open the journal of all evaluations that share model, prompts and device; a later one adds to it."""
    fingerprint = digest(
        {
            **settings_of(plan),
            "denoisers": msgspec.to_builtins(binding.denoisers),
            "versions": versions(),
            "device": device,
        }
    )
    with Journal(plan.out / f".measured.{fingerprint[7:19]}", fingerprint) as journal:
        if journal.records:
            print(f"resuming: {len(journal.records)} measurements are in {journal.folder}", file=sys.stderr)
        yield journal
