"""Frames of a sample one by one, for metrics of images."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING

from budc.compiler.metrics.kind import FrameMetric

if TYPE_CHECKING:
    from torch import Tensor


def mean_over_frames(score: Callable[[Tensor, Tensor], float]) -> FrameMetric:
    """Return the metric of a clip that is the mean of the score of each frame and its reference, (3, rows, columns)."""

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        pairs = zip(frames.unbind(1), reference.unbind(1), strict=True)
        return fmean(score(frame, other) for frame, other in pairs)

    return FrameMetric(measure)
