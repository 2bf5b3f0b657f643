"""What the paper's second stage minimises, as the user asks for it: checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from budc.compiler.metrics.lpips_files import ALEX_SIDE, ALEX_WEIGHTS, LPIPS_FILES, too_small
from budc.option_names import option
from budc.schema.errors import UsageError, WeightsMissing

Loss = Literal["latents", "lpips"]
"""The squared error of final latents, or LPIPS of decoded frames."""


def lpips_folder(
    loss: Loss | None, metric_weights: Path | None, *, second_stage: bool, frames: bool, size: tuple[int, int]
) -> Path | None:
    """Return the folder of LPIPS's weights where it is the loss, None where latents are.

    Args:
        loss: what is asked for.
        metric_weights: the folder of folders of weights.
        second_stage: whether the paper's search trains its sigmas.
        frames: whether frames are decoded.
        size: rows and columns of a frame.

    Raises:
        UsageError: nothing is trained by this loss, or there are no frames that it can compare.
        WeightsMissing: the weights are not there.
    """
    if loss is not None and not second_stage:
        raise UsageError(
            f"{option('loss', loss)}: is what the paper's second stage minimises",
            remedy=f"add {option('search', 'paper')} {option('align', True)} {option('train', 'sigmas')}, "
            f"or leave it out",
        )
    if loss != "lpips":
        if metric_weights is not None:
            raise UsageError(
                f"{option('metric-weights')}: is where {option('loss', 'lpips')} finds its weights",
                remedy=f"add {option('loss', 'lpips')}, or leave it out",
            )
        return None
    asked = option("loss", "lpips")
    if not frames:
        raise UsageError(
            f"{asked}: compares decoded frames, and {option('no-frames', True)} decodes none",
            remedy="leave out one of them",
        )
    if reason := too_small(ALEX_SIDE, *size):
        raise UsageError(f"{asked}: {reason}", remedy="leave it out, or compile for larger frames")
    folder = None if metric_weights is None else metric_weights / "lpips"
    remedy = f"{option('metric-weights', metric_weights or 'DIR')} with {ALEX_WEIGHTS} in lpips/"
    if folder is None:
        raise WeightsMissing(f"{asked}: its weights are needed", remedy=f"{remedy}; docs/metrics.md")
    for path in (folder / name for name in LPIPS_FILES):
        if not path.is_file():
            raise WeightsMissing(f"{asked}: {path} is not there", remedy=f"{remedy}; docs/metrics.md")
    return folder
