"""Which policy of a sweep to take: the one at the knee of quality over evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from budc.schema.printable import printable
from budc.schema.report_names import LATENT_MSE, PSNR

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.policy import PolicyDocument

CLEAR = 0.1
"""How far above the straight line a knee must be, as a share of what the sweep gains."""


def knee(evaluations: Sequence[float], quality: Sequence[float]) -> int | None:
    """Return the index of the point farthest above the line from the first to the last (Kneedle, Satopää 2011).

    Both axes are scaled to 0..1; evaluations ascend. None for fewer than three points, and where none is clearly above.
    """
    if len(evaluations) < 3 or quality[-1] <= quality[0]:
        return None
    first, last, low, high = evaluations[0], evaluations[-1], quality[0], quality[-1]
    above = [
        (value - low) / (high - low) - (count - first) / (last - first)
        for count, value in zip(evaluations, quality, strict=True)
    ]
    best = max(range(len(above)), key=above.__getitem__)
    return best if above[best] >= CLEAR else None


def recommendation(artifacts: Sequence[Artifact]) -> str:
    """Return which policy of a sweep to take, in one sentence."""
    ordered = sorted(artifacts, key=lambda artifact: artifact.document.budget.nfe)
    counts = [artifact.document.budget.nfe for artifact in ordered]
    if len(ordered) < 3:
        return "recommended: with three budgets or more, a sweep says after which of them more evaluations gain less"
    index = knee(counts, [_quality(artifact.document) for artifact in ordered])
    if index is None:
        return "recommended: none; quality has no knee between these budgets, so take the largest that you can afford"
    return printable(
        f"recommended: {counts[index]} evaluations, {ordered[index].path}; beyond them, an evaluation gains less "
        f"than on the way there"
    )


def _quality(document: PolicyDocument) -> float:
    """Return PSNR, or where frames were not decoded the logarithm of the latent error; higher is better."""
    metrics = {metric.name: metric for metric in document.quality.metrics}
    if PSNR in metrics:
        return metrics[PSNR].mean
    error = metrics[LATENT_MSE].geometric_mean or metrics[LATENT_MSE].mean
    return -math.log10(max(error, 1e-30))
