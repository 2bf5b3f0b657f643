"""The evaluations that lie beside an artifact, as layers of `budc verify` and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budc.cli.output.metric_labels import metric_label
from budc.schema.bounds import in_words
from budc.schema.evaluations import check_required, find_evaluations
from budc.schema.plural import counted
from budc.schema.printable import printable
from budc.schema.report_names import CALIBRATED, POLICY

if TYPE_CHECKING:
    from budc.cli.output.layers import Layers
    from budc.schema.artifact import Artifact
    from budc.schema.attestation import Attestation
    from budc.schema.evaluations import Found
    from budc.schema.policy import Metric
    from budc.schema.trust import Trust

_LAYER = "evaluated"


def check_evaluations(artifact: Artifact, trust: Trust, layers: Layers) -> tuple[Found, ...]:
    """List the evaluations beside an artifact, then check what `trust` requires; return them.

    Raises:
        NotEvaluated: none meets what is required.
    """
    assert artifact.path is not None
    found = find_evaluations(artifact.path, artifact.policy_id, artifact.document, trust)
    for item in found:
        name = item.path.name
        if item.evaluation is not None:
            layers.passed(
                _LAYER, printable(f"{name} by {_signers(item.evaluation, trust)}: {_text(item.evaluation)}")
            )
        else:
            layers.unchecked(_LAYER, printable(f"{name} is not believed: {item.refusal}"))
    meets = check_required(artifact.document.name, found, trust)
    if meets is not None:
        layers.passed("required", printable(f"{in_words(trust.required)}: {meets.path.name}"))
    return found


def _signers(evaluation: Attestation, trust: Trust) -> str:
    keys = [key.fingerprint for key in evaluation.verified_by]
    return " and ".join(trust.names.get(key, key) for key in keys)


def _text(evaluation: Attestation) -> str:
    """Return the policy's figures in the calibrated setting."""
    prompts, metrics = _calibrated(evaluation)
    if not metrics:
        return "no figures in the calibrated setting"
    figures = (
        f"{metric_label(metric.name).title} {metric.mean:.4g} (worst {metric.worst:.4g})"
        for metric in metrics
    )
    return f"{', '.join(figures)}; {counted(prompts, 'prompt')} on {evaluation.document.device}"


def record(item: Found) -> dict[str, object]:
    """Return an evaluation beside an artifact as one JSON object: its figures, or why it is not believed."""
    if item.evaluation is None:
        return {
            "file": str(item.path),
            "believed": False,
            "error": type(item.refusal).__name__,
            "message": str(item.refusal),
        }
    prompts, metrics = _calibrated(item.evaluation)
    return {
        "file": str(item.path),
        "believed": True,
        "evaluation": item.evaluation.digest,
        "signedBy": [key.fingerprint for key in item.evaluation.verified_by],
        "prompts": prompts,
        "metrics": {metric.name: {"mean": metric.mean, "worst": metric.worst} for metric in metrics},
    }


def _calibrated(evaluation: Attestation) -> tuple[int, list[Metric]]:
    setting = evaluation.document.setting(CALIBRATED)
    measured = setting.method(POLICY) if setting is not None else None
    return (0, []) if setting is None or measured is None else (setting.prompts.size, list(measured.metrics))
