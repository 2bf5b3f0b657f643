"""Metrics of a rollout against the reference run, per prompt, and their summaries.

Latent error: mean squared difference of the final latents (lower is better). PSNR: of decoded frames in
0..1, dB (higher is better).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from budc.schema.policy import Metric
from budc.schema.psnr import psnr_of
from budc.schema.report_names import LATENT_MSE

if TYPE_CHECKING:
    from torch import Tensor


def latent_errors(latents: Tensor, reference: Tensor) -> list[float]:
    """Mean squared error of every sample, in float64."""
    return [float((a.double() - b.double()).square().mean()) for a, b in zip(latents, reference, strict=True)]


def psnrs(frames: Tensor, reference: Tensor) -> list[float]:
    """PSNR of every clip, dB."""
    return [psnr_of(error) for error in latent_errors(frames, reference)]


def largest_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two tensors' values; infinite where shapes differ or a value is NaN."""
    if actual.shape != expected.shape:
        return math.inf
    largest = float((actual.double() - expected.double()).abs().max())
    return math.inf if math.isnan(largest) else largest


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two tensors' values, as a share of the largest value of `expected`.

    Infinite where a value is not finite, or where all of `expected` is 0.
    """
    largest = float(expected.double().abs().max())
    if not 0 < largest < math.inf:
        return math.inf
    return largest_difference(actual, expected) / largest


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; 0 for a single value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest value that `share` (0..1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latent_metric(errors: Sequence[float]) -> Metric:
    """Summarise latent errors; the geometric mean is robust to the few prompts that flip to another mode."""
    positive = min(errors) > 0
    return Metric(
        name=LATENT_MSE,
        mean=statistics.fmean(errors),
        standard_error=standard_error(errors),
        worst=max(errors),
        geometric_mean=statistics.geometric_mean(errors) if positive else 0.0,
        p95=percentile(errors, 0.95),
        samples=len(errors),
    )


ERROR_FLOOR = 1e-30
"""Smaller squared errors count as this, so that an exact rollout has a finite logarithm."""


def log_mean(errors: Sequence[float]) -> float:
    """Return the mean of log(error); infinite where one is not finite."""
    if not all(math.isfinite(error) for error in errors):
        return math.inf
    return sum(math.log(max(error, ERROR_FLOOR)) for error in errors) / len(errors)


def log_errors(errors: Tensor) -> Tensor:
    """Return log(error) of every sample, differentiably: `log_mean` for training."""
    return errors.clamp_min(ERROR_FLOOR).log()


def objective(kind: str, errors: Sequence[float]) -> float:
    """Return the loss of squared errors per prompt, their "mean" or "log-mean"; infinite where one is not finite."""
    if kind == "log-mean" or not all(math.isfinite(error) for error in errors):
        return log_mean(errors)
    return sum(errors) / len(errors)
