"""The evaluation: policies and rivals in every setting that was asked for, resumed where an earlier call was killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from budc.compiler.comparison.changed_model import check_experts, check_samplers
from budc.compiler.comparison.method import Method, policy_key
from budc.compiler.emit import versions
from budc.compiler.evaluate_request import EvaluationPlan, settings_of
from budc.compiler.evaluate_settings import Evaluation, Measured
from budc.compiler.evaluated import Evaluated
from budc.compiler.metrics import NotMeasured, load_metrics
from budc.compiler.models.adapters import check_loaded, with_adapters
from budc.compiler.models.binding import model_binding
from budc.compiler.models.model import load_model
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.model_workers import ModelWorkers, model_pool
from budc.compiler.workers.pool import Pool
from budc.progress import hashing, stage
from budc.runtimes.sampling.devices import device_name, find_device
from budc.schema.artifact import Artifact
from budc.schema.canonical import digest
from budc.schema.digest_cache import DigestCache
from budc.schema.evaluation import (
    EVALUATION_VERSION,
    EvaluationDocument,
    MethodResult,
    NotMeasuredNote,
    SettingResult,
)
from budc.schema.policy import ModelBinding
from budc.schema.printable import printable
from budc.schema.report_names import FULL
from budc.schema.timestamps import issue_time


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
