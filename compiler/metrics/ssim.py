"""SSIM, the structural similarity of Wang, Bovik, Sheikh and Simoncelli (2004), by scikit-image.

Of each frame, on R, G and B in 0..1, with a Gaussian window of 11 × 11 (sigma 1.5), K1 = 0.01, K2 = 0.03, and
covariances weighted by the window. The mean over pixels whose whole window is in the frame, then over channels and
frames.
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
    from skimage.metrics import structural_similarity

    def score(frame: Tensor, reference: Tensor) -> float:
        similarity = structural_similarity(
            frame.double().numpy(),
            reference.double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            K1=0.01,
            K2=0.03,
            use_sample_covariance=False,
        )
        return float(similarity)

    return mean_over_frames(score)


SSIM = MetricKind(name="ssim", load=_load, needs=("scikit-image",), least_side=11)
