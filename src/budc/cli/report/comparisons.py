"""Figures that can be compared: methods measured against the same full run, on the same prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from budc.schema.evaluation_rules import full_steps
from budc.schema.report_names import CALIBRATED, FEWER_STEPS, FROZEN, FULL, NATIVE, POLICY, UNIFORM

if TYPE_CHECKING:
    from budc.cli.report.sources import Source
    from budc.schema.attestation import Attestation
    from budc.schema.evaluation import Latency, SettingResult
    from budc.schema.policy import Metric, PolicyDocument, Shape

TITLES: Mapping[str, str] = {
    FULL: "full run",
    FEWER_STEPS: "fewer steps",
    UNIFORM: "uniform mask",
    FROZEN: "coefficients as they came",
    NATIVE: "searched on the target itself",
}
"""The baselines of an artifact, as a legend has them."""


@dataclass(frozen=True)
class Row:
    """One method at one number of evaluations."""

    kind: str
    """"policy", "full", or another method's name."""
    title: str
    """A policy's name; else the method's title."""
    nfe: float
    metrics: Mapping[str, Metric]
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Values of each metric prompt by prompt, where an evaluation has them."""
    latency: Latency | None = None


@dataclass
class Comparison:
    """Rows that share model, setting and prompts."""

    title: str
    origin: str
    """Who measured, and on how many prompts."""
    rows: list[Row] = field(default_factory=list)

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, in the order in which they come."""
        return list(dict.fromkeys(name for row in self.rows for name in row.metrics))

    @property
    def policies(self) -> list[Row]:
        """The rows of policies."""
        return [row for row in self.rows if row.kind == POLICY]

    @property
    def timed(self) -> bool:
        """Whether the policies' loops were timed."""
        return any(row.latency for row in self.policies)

    @property
    def sampled(self) -> bool:
        """Whether the values of each prompt are there."""
        return any(row.samples for row in self.policies)

    def add(self, row: Row) -> None:
        """Add a row; a baseline that several policies were measured beside counts once."""
        if row.kind != POLICY:
            same = (other for other in self.rows if (other.kind, other.nfe) == (row.kind, row.nfe))
            if next(same, None) is not None:
                return
        self.rows.append(row)


def comparisons(sources: Iterable[Source]) -> list[Comparison]:
    """Return what can be compared: first what the artifacts report, then what was measured in each setting."""
    sources = list(sources)
    found: dict[str, Comparison] = {}
    for source in sources:
        _add_report(found, source.document)
    for source in sources:
        for attestation in source.evaluations.values():
            for setting in attestation.document.settings:
                _add_setting(found, source.document, attestation, setting)
    return list(found.values())


def model_name(document: PolicyDocument) -> str:
    """Return what a policy's model is called: its profile, or the classes of its networks."""
    model = document.model
    return model.profile or ", ".join(denoiser.class_name for denoiser in model.denoisers)


def size_of(shape: Shape | None) -> str:
    """Return the size of what is generated."""
    if shape is None:
        return ""
    frames = "" if shape.frames == 1 else f", {shape.frames} frames"
    return f", {shape.height} × {shape.width}{frames}"


def _add_report(found: dict[str, Comparison], document: PolicyDocument) -> None:
    sampler, report = document.sampler, document.quality
    steps = full_steps(document)
    key = _key(
        document, sampler.config_digest, sampler.guidance, document.shape, steps, report.held_out.digest
    )
    comparison = found.setdefault(
        key,
        Comparison(
            f"{model_name(document)}{size_of(document.shape)}: {sampler.scheduler}, {steps} steps",
            f"reported by the artifacts, on {report.held_out.size} held-out prompts",
        ),
    )
    comparison.add(Row(POLICY, document.name, document.budget.nfe, _by_name(report.metrics)))
    for item in report.baselines:
        comparison.add(Row(item.name, TITLES.get(item.name, item.name), item.nfe, _by_name(item.metrics)))


def _add_setting(
    found: dict[str, Comparison],
    document: PolicyDocument,
    attestation: Attestation,
    setting: SettingResult,
) -> None:
    evaluation, prompts = attestation.document, setting.prompts
    keys = [key.fingerprint for key in attestation.verified_by]
    signed = f"signed by {', '.join(keys)}" if keys else "not verified"
    key = _key(
        document,
        evaluation.device,
        setting.name,
        setting.guidance,
        setting.shape,
        setting.steps,
        prompts.digest,
        # What somebody vouches for and what nobody does are not drawn as one.
        keys,
    )
    changed = "" if setting.name == CALIBRATED else f" ({setting.name})"
    comparison = found.setdefault(
        key,
        Comparison(
            f"{model_name(document)}{size_of(setting.shape)}: {setting.scheduler}, {setting.steps} steps{changed}",
            f"measured by an evaluation on {evaluation.device}, on {prompts.size} prompts; {signed}",
        ),
    )
    for method in setting.methods:
        title = evaluation.policy_name if method.name == POLICY else method.title
        row = Row(method.name, title, method.nfe, _by_name(method.metrics), method.samples, method.latency)
        comparison.add(row)


def _key(document: PolicyDocument, *parts: object) -> str:
    """Return what all figures of a comparison share."""
    roots = [denoiser.tensor_root for denoiser in document.model.denoisers]
    return json.dumps(msgspec.to_builtins([roots, *parts]))


def _by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}
