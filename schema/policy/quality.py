"""Quality: what a policy costs in quality, as measured."""

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from budc.schema.fields import MAX_MAGNITUDE, Count, Digest, Name, Number, Positive, StepCount, Strict, Text

REPLAY_TOLERANCE: Final = 0.02
"""Tolerance of a report that states none. On the same weights and prompts, other hardware and library versions change
figures by less."""


class PromptSet(Strict, frozen=True, kw_only=True):
    """A set of prompts and seeds, identified by its content."""

    digest: Digest
    size: Count
    """0 if the policy needed no calibration."""


class Metric(Strict, frozen=True, kw_only=True):
    """One measure of the cached run against the full run, over the held-out prompts."""

    name: Name
    """"latent-mse", "psnr", …"""
    unit: Text | None = None
    mean: Number
    standard_error: Annotated[float, Meta(ge=0, le=MAX_MAGNITUDE)]
    worst: Number
    """The value of the worst prompt: the largest error, the smallest PSNR."""
    geometric_mean: Number | None = None
    p95: Number | None = None
    samples: Positive
    evaluation: Digest | None = None
    """sha256 of the payload of the signed evaluation that the figure is from; unset if the compiler measured it."""


_Metrics = Annotated[Sequence[Metric], Meta(max_length=64)]


class Baseline(Strict, frozen=True, kw_only=True):
    """A simpler method, measured on the same prompts."""

    name: Name
    nfe: StepCount
    metrics: _Metrics


class Quality(Strict, frozen=True, kw_only=True):
    """What the policy costs in quality, and what simpler methods cost."""

    objective: Name
    calibration: PromptSet
    held_out: PromptSet
    metrics: _Metrics
    baselines: Annotated[Sequence[Baseline], Meta(max_length=64)]
    replay_tolerance: Annotated[float, Meta(ge=1e-6, le=0.1)] | None = None
    """Relative difference up to which figures that are measured again agree with these; `REPLAY_TOLERANCE` if unset."""
