"""A valid evaluation of a policy document, of which a test changes what it is about."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from budc.schema.evaluation import (
    EVALUATION_VERSION,
    EvaluationDocument,
    Latency,
    MethodResult,
    NotMeasuredNote,
    SettingResult,
)
from budc.schema.evaluation_rules import full_steps
from budc.schema.policy import Metric, PolicyDocument, PromptSet
from budc.schema.report_names import CALIBRATED, FULL, LATENT_MSE, POLICY, PSNR
from budc.schema.statement import encode_statement, policy_id

MakeEvaluation = Callable[..., EvaluationDocument]
PSNRS = [28.0, 30.0, 32.0, 34.0]
"""Of the policy, prompt by prompt."""


def _metric(name: str, values: list[float], *, worst: float) -> Metric:
    mean = sum(values) / len(values)
    return Metric(name=name, mean=mean, standard_error=0.5, worst=worst, samples=len(values))


def _method(name: str, nfe: float, psnrs: list[float], error: float) -> MethodResult:
    return MethodResult(
        name=name,
        title=name,
        nfe=nfe,
        forwards=2 * nfe,
        metrics=[_metric(LATENT_MSE, [error], worst=error), _metric(PSNR, psnrs, worst=min(psnrs))],
        samples={LATENT_MSE: [error], PSNR: psnrs},
        latency=Latency(median=0.5, fastest=0.25, slowest=1.0, repeats=3, peak_memory=1 << 20),
    )


def _setting(document: PolicyDocument, psnrs: list[float]) -> SettingResult:
    assert document.shape is not None
    branches = document.budget.branches.values()
    return SettingResult(
        name=CALIBRATED,
        scheduler=document.sampler.scheduler,
        config_digest=document.sampler.config_digest,
        steps=full_steps(document),
        guidance=document.sampler.guidance,
        shape=document.shape,
        prompts=PromptSet(digest="sha256:" + "7" * 64, size=len(psnrs)),
        methods=[
            _method(POLICY, sum(branches) / len(branches), psnrs, 0.01),
            _method(FULL, full_steps(document), [120.0] * len(psnrs), 0.0),
        ],
    )


def _evaluation(document: PolicyDocument, psnrs: list[float] = PSNRS, **fields: Any) -> EvaluationDocument:
    """Return an evaluation of this policy in two settings; `psnrs` are the policy's, `fields` replace whole parts."""
    calibrated = _setting(document, psnrs)
    other = msgspec.structs.replace(calibrated, name="guidance=4", guidance=4.0)
    evaluation = EvaluationDocument(
        schema_version=EVALUATION_VERSION,
        policy=policy_id(encode_statement(document)),
        policy_name=document.name,
        issued_at="2026-07-02T12:00:00Z",
        device="cpu",
        versions={"budc": "0.1.0"},
        metric_weights={"clip-score": f"sha256:{'c' * 64}"},
        settings=[calibrated, other],
        not_measured=[NotMeasuredNote(name="vmaf", reason="these are images")],
    )
    return msgspec.structs.replace(evaluation, **fields)


@pytest.fixture(scope="session")
def make_evaluation() -> MakeEvaluation:
    """A function that returns a valid EvaluationDocument of a policy document; see `_evaluation`."""
    return _evaluation
