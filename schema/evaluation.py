"""Evaluation: what was measured of a policy on one's own weights, beside the full run and other methods.

EvaluationDocument is the Python reading of `evaluation-v1.schema.json`, field for field. `budc evaluate` writes it as
`NAME.evaluation.json`, as it is or signed (`budc.schema.attestation`).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, Self

import msgspec
from msgspec import Meta, field
from msgspec.structs import replace

from budc.schema.fields import (
    Count,
    Digest,
    Guidance,
    Name,
    Number,
    Positive,
    StepCount,
    Strict,
    Text,
    Timestamp,
)
from budc.schema.kept_frames import KeptFrames
from budc.schema.policy import Metric, PromptSet, Shape

EvaluationVersion = Literal["1.0"]
EVALUATION_VERSION: Final[EvaluationVersion] = "1.0"

_Seconds = Annotated[float, Meta(gt=0, le=1e9)]
_Values = Annotated[Sequence[Number], Meta(min_length=1, max_length=1 << 14)]


class Latency(Strict, frozen=True, kw_only=True):
    """Seconds of one sample's denoising loop: the median of repeats after a warm-up, the fastest and the slowest."""

    median: _Seconds
    fastest: _Seconds
    slowest: _Seconds
    repeats: Positive
    peak_memory: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    """Bytes that the device had allocated at most; unset where the device does not count them."""


class MethodResult(Strict, frozen=True, kw_only=True):
    """A method on the prompts of one setting, against the full run of that setting."""

    name: Name
    """"policy", "full", or a rival's name."""
    title: Text
    nfe: Annotated[float, Meta(ge=1, le=1e6)]
    """Evaluations per guidance branch, mean over the samples."""
    forwards: Annotated[float, Meta(ge=1, le=1e9)]
    """Transformer forwards of one sample, all branches together, mean over the samples."""
    fitting_forwards: Count = 0
    """Forwards that fitting the method took, in the calibrated setting."""
    metrics: Annotated[Sequence[Metric], Meta(max_length=64)]
    samples: Annotated[Mapping[Name, _Values], Meta(max_length=64)] = field(default_factory=dict)
    """The values of metrics, prompt by prompt; a summary has none."""
    latency: Latency | None = None

    def metric(self, name: str) -> Metric | None:
        """Return the metric of this name; None where it was not measured."""
        return next((metric for metric in self.metrics if metric.name == name), None)


class SettingResult(Strict, frozen=True, kw_only=True):
    """All methods in one setting."""

    name: Text
    """"calibrated", or the change of it: "scheduler=euler"."""
    scheduler: Name
    config_digest: Digest
    """Of the scheduler's settings, as in a policy's sampler."""
    steps: StepCount
    """Of the full run."""
    guidance: Guidance
    shape: Shape | None = None
    """Unset for a network alone, which has `latents`."""
    latents: Annotated[Sequence[Positive], Meta(max_length=8)] = field(default_factory=list)
    """The shape of one sample's latents."""
    prompts: PromptSet
    methods: Annotated[Sequence[MethodResult], Meta(min_length=1, max_length=64)]
    frames: KeptFrames | None = None
    """Pictures of some of the prompts, in files beside the evaluation's."""

    def method(self, name: str) -> MethodResult | None:
        """Return the results of the method of this name; None where it is not there."""
        return next((method for method in self.methods if method.name == name), None)


class NotMeasuredNote(Strict, frozen=True, kw_only=True):
    """What was asked for and could not be measured, and why."""

    name: Name
    reason: Text


class EvaluationDocument(Strict, frozen=True, kw_only=True):
    """One policy, measured."""

    schema_version: EvaluationVersion
    policy: Digest
    """The policy id."""
    policy_name: Name
    issued_at: Timestamp
    device: Text
    versions: Annotated[Mapping[Name, Text], Meta(max_length=256)]
    metric_weights: Annotated[Mapping[Name, Digest], Meta(max_length=64)] = field(default_factory=dict)
    """Digest of the files of each metric that has a network; figures of other files cannot be compared with these."""
    settings: Annotated[Sequence[SettingResult], Meta(min_length=1, max_length=64)]
    not_measured: Annotated[Sequence[NotMeasuredNote], Meta(max_length=64)] = field(default_factory=list)

    def setting(self, name: str) -> SettingResult | None:
        """Return the results of a setting by its name; None where it was not measured."""
        return next((setting for setting in self.settings if setting.name == name), None)

    def summary(self) -> Self:
        """Return the evaluation without the values of each prompt, which take most of its size."""
        settings = [
            replace(setting, methods=[replace(method, samples={}) for method in setting.methods])
            for setting in self.settings
        ]
        return replace(self, settings=settings)


def plain_file(document: EvaluationDocument) -> bytes:
    """Return the file of an evaluation that is not signed: JSON, laid out for people."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
