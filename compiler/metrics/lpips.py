"""LPIPS of Zhang, Isola, Efros, Shechtman and Wang (2018), version 0.1, of each frame; the mean over frames.

From 0, for equal frames, upwards; 1 is far. `lpips` looks at features of AlexNet, which its authors recommend for
measuring, `lpips-vgg` at those of VGG-16. Frames keep their size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.frames import mean_over_frames
from budc.compiler.metrics.kind import FrameMetric, MetricKind
from budc.compiler.metrics.lpips_files import ALEX_SIDE, ALEX_WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _load_alex(weights: Path | None, device: torch.device) -> FrameMetric:
    return _load("alex", weights, device)


def _load_vgg(weights: Path | None, device: torch.device) -> FrameMetric:
    return _load("vgg", weights, device)


def _load(network: str, weights: Path | None, device: torch.device) -> FrameMetric:
    import torch

    from budc.compiler.metrics.lpips_network import load_lpips

    assert weights is not None
    distance = load_lpips(network, weights).to(device)

    @torch.no_grad()
    def score(frame: Tensor, reference: Tensor) -> float:
        return float(distance(frame[None].to(device), reference[None].to(device)))

    return mean_over_frames(score)


LPIPS = MetricKind(
    name="lpips",
    load=_load_alex,
    higher_is_better=False,
    weights=ALEX_WEIGHTS,
    least_side=ALEX_SIDE,
)
LPIPS_VGG = MetricKind(
    name="lpips-vgg",
    load=_load_vgg,
    higher_is_better=False,
    weights="features.safetensors (VGG-16 of torchvision) and linear.safetensors (LPIPS v0.1, vgg)",
    least_side=16,
)
