"""The evaluation: policies and rivals in every setting that was asked for, resumed where an earlier call was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import msgspec
from torch import Tensor

from budc.compiler.comparison.changed_model import Deployment, check_experts, check_samplers
from budc.compiler.comparison.changes import Change
from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.frame_values import Values, frame_values
from budc.compiler.comparison.kept_frames import keep_frames, load_decoder
from budc.compiler.comparison.method import Method, Rolled, policy_key
from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.comparison.setting_run import SettingRun
from budc.compiler.emit import output_shape, versions
from budc.compiler.evaluate_request import EvaluationPlan, settings_of
from budc.compiler.evaluated import Evaluated
from budc.compiler.evaluation.reference import prompt_set
from budc.compiler.metrics import FrameMetric, NotMeasured, load_metrics
from budc.compiler.metrics.summary import summary
from budc.compiler.models.adapters import check_loaded, with_adapters
from budc.compiler.models.binding import model_binding
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.model_workers import ModelWorkers, model_pool
from budc.compiler.workers.pool import Pool
from budc.progress import hashing, stage
from budc.runtimes.sampling.devices import device_name, find_device
from budc.schema.artifact import Artifact
from budc.schema.canonical import digest
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import printable
from budc.schema.evaluation import (
    EVALUATION_VERSION,
    EvaluationDocument,
    Latency,
    MethodResult,
    NotMeasuredNote,
    SettingResult,
)
from budc.schema.kept_frames import KeptFrames
from budc.schema.policy import ModelBinding
from budc.schema.report_names import FEWER_STEPS, FULL, LATENT_MSE
from budc.schema.timestamps import issue_time


class Measured(NamedTuple):
    """One setting: what ran, the setting without methods, and the methods."""

    run: SettingRun
    setting: SettingResult
    results: Sequence[tuple[Method, MethodResult]]


@dataclass(frozen=True)
class Evaluation:
    """The model of an evaluation, loaded, and the metrics that can be measured."""

    plan: EvaluationPlan
    model: LoadedModel
    binding: ModelBinding
    journal: Journal
    metrics: Mapping[str, FrameMetric]
    workers: ModelWorkers | None = None

    def measure(self, change: Change) -> Measured:
        """Measure every method in one setting."""
        plan = self.plan
        run = self.calibrated if change is plan.settings[0] else self._run(change)
        methods = self._methods(run)
        rolled = [run.roll_out(method) for method in methods]
        latencies = run.latencies(methods, plan.repeats) if plan.repeats else {}
        values = frame_values(
            run.model,
            {item.method.key: item.latents for item in rolled},
            run.held_out.latents,
            [sample.prompt for sample in run.samples],
            self.metrics,
            self.journal,
            change.key,
        )
        setting = SettingResult(
            name=change.name,
            scheduler=run.full.scheduler,
            config_digest=run.full.config_digest,
            steps=run.full.steps,
            guidance=run.full.guidance,
            shape=output_shape(change.profile),
            prompts=prompt_set(run.samples),
            methods=[],
        )
        results = [
            (item.method, self._row(item, run, values, latencies.get(item.method.key))) for item in rolled
        ]
        return Measured(run, setting, results)

    def _methods(self, run: SettingRun) -> list[Method]:
        """Return the full run, the policies, and the rivals at each of their budgets."""
        plan = self.plan
        budgets = sorted({artifact.document.budget.nfe for artifact in plan.policies})
        methods = [run.full_method(), *(run.of_policy(artifact, self.model) for artifact in plan.policies)]
        for nfe in budgets:
            for name in plan.against:
                if name == FEWER_STEPS:
                    methods.append(run.fewer_steps(nfe))
                elif isinstance(fitted := self.fits[name, nfe], Fitted):
                    methods.append(run.rival(name, nfe, fitted))
        return methods

    def _row(
        self, item: Rolled, run: SettingRun, values: Sequence[Values], latency: Latency | None
    ) -> MethodResult:
        errors = latent_errors(item.latents, run.held_out.latents)
        samples, metrics = {LATENT_MSE: errors}, [latent_metric(errors)]
        for kind in self.plan.metrics:
            if kind.name in self.metrics:
                samples[kind.name] = [sample[item.method.key][kind.name] for sample in values]
                metrics.append(summary(kind, samples[kind.name]))
        return item.result(len(self.plan.profile.branches), metrics, samples, latency)

    def frames(self, measured: Measured, policy: Artifact) -> tuple[KeptFrames | None, Mapping[str, bytes]]:
        """Return the frames of a policy in one setting, where they are to be kept, and their files."""
        if not self.plan.keep_frames:
            return None, {}
        method, result = next(item for item in measured.results if item[0].key == policy_key(policy))
        run = measured.run
        return keep_frames(
            self._decode,
            run.roll_out(method).latents,
            run.held_out.latents,
            [sample.prompt for sample in run.samples],
            result.samples,
        )

    @cached_property
    def _decode(self) -> Callable[[Tensor], Tensor]:
        return load_decoder(self.calibrated.model)

    @cached_property
    def calibrated(self) -> SettingRun:
        """The setting in which nothing is changed; rivals are fitted to it, and to no other."""
        return self._run(self.plan.settings[0])

    @cached_property
    def fits(self) -> Mapping[tuple[str, int], Fitted | CannotRun]:
        """Each rival at each budget of the policies, fitted, or why it cannot run there."""
        plan = self.plan
        budgets = sorted({artifact.document.budget.nfe for artifact in plan.policies})
        names = [name for name in plan.against if name != FEWER_STEPS]
        return {(name, nfe): self.calibrated.fit(name, nfe, plan.seed) for nfe in budgets for name in names}

    def left_out(self, nfe: int) -> list[NotMeasuredNote]:
        """Return the rivals that cannot run at so many evaluations."""
        return [
            NotMeasuredNote(name=name, reason=str(reason))
            for (name, budget), reason in self.fits.items()
            if budget == nfe and isinstance(reason, CannotRun)
        ]

    def _run(self, change: Change) -> SettingRun:
        plan = self.plan
        deployment = Deployment(change, plan.settings[0], self.binding, plan.offload)
        hire = None
        if self.workers is not None:
            hire = partial(self.workers.report, self.journal, deploy=deployment)
        return SettingRun(change, deployment(self.model), plan.steps, plan.samples, self.journal, hire)


def evaluate(plan: EvaluationPlan) -> list[Evaluated]:
    """Measure the policies of a plan; return an evaluation of each.

    That the folder holds what they are bound to was checked before, see `budc.schema.model_files.accepted_files`.

    Raises:
        WeightsMissing, UnsafeWeights: see `model_binding` and `load_model`.
        CalibrationMismatch: see `check_samplers`, `check_experts` and `check_loaded`.
        DeviceMemory: see `PipelineRollout`, `frame_values` and `keep_frames`.
    """
    with model_pool(plan.cluster, find_device(plan.device), plan.out) as pool:
        return _evaluate(plan, pool)


def _evaluate(plan: EvaluationPlan, pool: Pool | None) -> list[Evaluated]:
    device = find_device(plan.device)
    digests = DigestCache.of_user(watch=hashing, rehash=plan.rehash)
    stage("hash", printable(f"the files of {plan.folder}"))
    binding = model_binding(plan.profile, plan.folder, digests)
    stage("load", printable(plan.profile.title))
    model = load_model(plan.profile, plan.folder, device, plan.offload)
    check_samplers(plan.policies, model)
    check_experts(plan.policies, plan.settings, model, plan.steps)
    if plan.settings[0].adapters:
        binding = with_adapters(model, binding, plan.settings[0].adapters)
        for artifact in plan.policies:
            check_loaded(artifact.document.model, binding)
    profiles = [change.profile for change in plan.settings]
    smallest = min(profile.height for profile in profiles), min(profile.width for profile in profiles)
    metrics, missing = load_metrics(plan.metrics, plan.metric_weights, device, smallest)
    with _journal(plan, binding, device_name(device)) as journal:
        adapters = plan.settings[0].adapters
        workers = None if pool is None else ModelWorkers(pool, model, adapters, plan.offload)
        evaluation = Evaluation(plan, model, binding, journal, metrics, workers)
        measured = [evaluation.measure(change) for change in plan.settings]
        return [_evaluated(evaluation, artifact, measured, missing) for artifact in plan.policies]


def _evaluated(
    evaluation: Evaluation,
    artifact: Artifact,
    measured: Sequence[Measured],
    missing: Sequence[NotMeasured],
) -> Evaluated:
    """Return what was measured of one policy."""
    settings, frames = list[SettingResult](), dict[str, bytes]()
    for item in measured:
        kept, files = evaluation.frames(item, artifact)
        methods = _beside(artifact, item.results)
        settings.append(msgspec.structs.replace(item.setting, methods=methods, frames=kept))
        frames |= files
    metrics = evaluation.metrics
    document = EvaluationDocument(
        schema_version=EVALUATION_VERSION,
        policy=artifact.policy_id,
        policy_name=artifact.document.name,
        issued_at=issue_time(),
        device=device_name(evaluation.model.device),
        versions=versions(),
        metric_weights={name: metric.weights for name, metric in metrics.items() if metric.weights},
        settings=settings,
        not_measured=[
            *(_note(item) for item in missing),
            *evaluation.left_out(artifact.document.budget.nfe),
        ],
    )
    return Evaluated(document, frames)


def _beside(artifact: Artifact, results: Sequence[tuple[Method, MethodResult]]) -> list[MethodResult]:
    """Return the policy, the rivals at its budget, and the full run."""
    own = [result for method, result in results if method.key == policy_key(artifact)]
    rivals = [result for method, result in results if method.budget == artifact.document.budget.nfe]
    return [*own, *rivals, *(result for method, result in results if method.name == FULL)]


def _note(item: NotMeasured) -> NotMeasuredNote:
    return NotMeasuredNote(name=item.name, reason=f"{item.reason}; {item.remedy}"[:1024])


@contextmanager
def _journal(plan: EvaluationPlan, binding: ModelBinding, device: str) -> Iterator[Journal]:
    """Open the journal of all evaluations that share model, prompts and device; a later one adds to it."""
    fingerprint = digest(
        {
            **settings_of(plan),
            "model": msgspec.to_builtins(binding),
            "versions": versions(),
            "device": device,
        }
    )
    with Journal(plan.out / f".measured.{fingerprint[7:19]}", fingerprint, plan.batch) as journal:
        if journal.records:
            stage("resume", f"{len(journal.records)} measurements are in {printable(str(journal.folder))}")
        yield journal
