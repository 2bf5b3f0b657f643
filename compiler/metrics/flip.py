"""LDR-FLIP of Andersson, Nilsson, Akenine-Möller, Oskarsson, Åström and Fairchild (2020), by its authors' package.

The difference that a person sees who alternates between two images: 0 to 1, the mean over all pixels. Viewing distance
is FLIP's default, 0.7 m before a display 3840 pixels and 0.7 m wide: 67 pixels a degree.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.frames import mean_over_frames
from budc.compiler.metrics.kind import FrameMetric, MetricKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    from flip_evaluator import evaluate

    def score(frame: Tensor, reference: Tensor) -> float:
        pixels, expected = (image.permute(1, 2, 0).contiguous().numpy() for image in (frame, reference))
        _, mean, _ = evaluate(expected, pixels, "LDR", applyMagma=False)
        return float(mean)

    return mean_over_frames(score)


FLIP = MetricKind(name="flip", load=_load, higher_is_better=False, medium="image", needs=("flip-evaluator",))
