"""PSNR of a sample: 10 · log10(1 / squared error), the error over all pixels, channels and frames of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.kind import FrameMetric, MetricKind
from budc.schema import report_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    from budc.compiler.rollouts.metrics import psnrs

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        return psnrs(frames[None], reference[None])[0]

    return FrameMetric(measure)


PSNR = MetricKind(name=report_names.PSNR, unit="dB", load=_load)
