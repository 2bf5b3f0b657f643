"""SSIMULACRA2 of Sneyers (2022), version 2.1, as libjxl defines it.

100 for equal images, 90 for differences that are not seen, 70, 50 and 30 for high, medium and low quality; it may be
negative. Errors of structure, added edges and lost edges in XYB colours, at up to six scales, in the 1-norm and the
4-norm, are weighted and mapped to this scale. The Python package of that name is not used: up to version 0.3.0 it blurs
with another window, and its scores are others.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.frames import mean_over_frames
from budc.compiler.metrics.kind import FrameMetric, MetricKind
from budc.compiler.metrics.ssimulacra2_weights import WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SCALES = 6
LEAST_SIDE = 8
"""Pixels of the smallest scale that is looked at."""

_ABSORBANCE = (
    (0.30, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
_BIAS = 0.0037930732552754493
_SIGMA, _RADIUS = 1.5, 5
_C2 = 0.0009


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    def score(frame: Tensor, reference: Tensor) -> float:
        return ssimulacra2(frame.float(), reference.float())

    return mean_over_frames(score)


SSIMULACRA2 = MetricKind(name="ssimulacra2", load=_load, medium="image", least_side=LEAST_SIDE)


def ssimulacra2(image: Tensor, reference: Tensor) -> float:
    """Return the score of an image (3, rows, columns), sRGB in 0..1, against its reference."""
    from torch.nn.functional import avg_pool2d, pad

    pair = [_linear(reference), _linear(image)]
    error = 0.0
    scales: list[Tensor] = []
    while len(scales) < SCALES and min(pair[0].shape[-2:]) >= LEAST_SIDE:
        scales.append(_error_maps(_xyb(pair[0]), _xyb(pair[1])))
        # An odd last row or column counts twice.
        odd = (0, pair[0].shape[-1] % 2, 0, pair[0].shape[-2] % 2)
        pair = [avg_pool2d(pad(pixels[None], odd, mode="replicate"), 2)[0] for pixels in pair]
    # Norms are (map, channel, norm), weights go by channel, scale, norm, map. Images that are too small for all scales
    # use the first weights of the list, as in libjxl.
    terms = [
        float(scale[kind, channel, norm])
        for channel in range(3)
        for scale in scales
        for norm in range(2)
        for kind in range(3)
    ]
    error = 0.9562382616834844 * sum(weight * term for weight, term in zip(WEIGHTS, terms, strict=False))
    error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
    return 100.0 - 10.0 * error**0.6276336467831387 if error > 0 else 100.0


def _linear(image: Tensor) -> Tensor:
    import torch

    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor) -> Tensor:
    """Return the colours of linear RGB (3, rows, columns), moved and scaled to 0..1 or nearly so."""
    import torch

    absorbed = torch.einsum("ij,jyx->iyx", linear.new_tensor(_ABSORBANCE), linear) + _BIAS
    long, medium, short = absorbed.clamp_min(0) ** (1 / 3) - _BIAS ** (1 / 3)
    x, y = (long - medium) / 2, (long + medium) / 2
    return torch.stack([14.0 * x + 0.42, y + 0.01, short - y + 0.55])


def _error_maps(reference: Tensor, image: Tensor) -> Tensor:
    """Return (map, channel, norm): structure, added edges and lost edges, in the 1-norm and the 4-norm."""
    import torch

    mean, other = _blur(reference), _blur(image)
    variances = (_blur(reference**2) - mean**2) + (_blur(image**2) - other**2)
    covariance = _blur(reference * image) - mean * other
    structure = 1 - (1 - (mean - other) ** 2) * (2 * covariance + _C2) / (variances + _C2)
    edges = (1 + (image - other).abs()) / (1 + (reference - mean).abs()) - 1
    maps = torch.stack([structure, edges, -edges]).clamp_min(0)
    return torch.stack([maps.mean(dim=(-1, -2)), (maps**4).mean(dim=(-1, -2)) ** 0.25], dim=-1)


def _blur(pixels: Tensor) -> Tensor:
    """Blur along both axes, with zeros outside."""
    import torch
    from torch.nn.functional import pad

    for axis in (-1, -2):
        size = pixels.shape[axis]
        padded = pad(pixels, (_RADIUS, _RADIUS) if axis == -1 else (0, 0, _RADIUS, _RADIUS))
        pixels = torch.zeros_like(pixels)
        for start, weight in enumerate(_window()):
            pixels.add_(padded.narrow(axis, start, size), alpha=weight)
    return pixels


@cache
def _window() -> tuple[float, ...]:
    """Return the window of Charalampidis (2016): a Gaussian of three cosines.

    Their coefficients are those of the Gaussian, with the least change that makes the sum 1 and the variance exact.
    """
    import torch

    taps = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    frequencies = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64) * math.pi / (2 * _RADIUS)
    cosines = torch.cos(frequencies[:, None] * taps)
    gaussian = torch.exp(-((_SIGMA * frequencies) ** 2) / 2) / _RADIUS
    moments = torch.stack([cosines.sum(1), (cosines * taps**2).sum(1)])
    missing = torch.tensor([1.0, _SIGMA**2], dtype=torch.float64) - moments @ gaussian
    coefficients = gaussian + torch.linalg.pinv(moments) @ missing
    return tuple((coefficients @ cosines).tolist())
