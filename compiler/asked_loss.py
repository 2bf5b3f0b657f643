"""What the paper's second stage minimises, as the user asks for it: checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from budc.compiler.metrics.lpips_files import ALEX_SIDE, ALEX_WEIGHTS, LPIPS_FILES, too_small
from budc.option_names import option
from budc.schema.errors import UsageError, WeightsMissing

Loss = Literal["latents", "lpips"]
"""The squared error of final latents, or LPIPS of decoded frames."""


def by_lpips(loss: Loss | None, *, second_stage: bool, size: tuple[int, int], frames: bool = True) -> bool:
    """Return whether LPIPS is what is minimised.

    Args:
        loss: what is asked for.
        second_stage: whether the paper's search trains its sigmas.
        size: rows and columns of a frame.
        frames: whether frames are decoded.

    Raises:
        UsageError: nothing is trained by this loss, or there are no frames that it can compare.
    """
    if loss is not None and not second_stage:
        raise UsageError(
            f"{option('loss', loss)}: is what the paper's second stage minimises",
            remedy=f"add {option('search', 'paper')} {option('align', True)} {option('train', 'sigmas')}, "
            f"or leave it out",
        )
    if loss != "lpips":
        return False
    asked = option("loss", "lpips")
    if not frames:
        raise UsageError(
            f"{asked}: compares decoded frames, and {option('no-frames', True)} decodes none",
            remedy="leave out one of them",
        )
    if reason := too_small(ALEX_SIDE, *size):
        raise UsageError(f"{asked}: {reason}", remedy="leave it out, or compile for larger frames")
    return True


def lpips_folder(metric_weights: Path | None, *, wanted: bool) -> Path | None:
    """Return the folder of LPIPS's weights where it is the loss that is `wanted`, None where it is not.

    Raises:
        UsageError: `metric_weights`, the folder of folders of weights, is given for nothing.
        WeightsMissing: the weights are not there.
    """
    asked = option("loss", "lpips")
    if not wanted:
        if metric_weights is not None:
            raise UsageError(
                f"{option('metric-weights')}: is where {asked} finds its weights",
                remedy=f"add {asked}, or leave it out",
            )
        return None
    folder = None if metric_weights is None else metric_weights / "lpips"
    remedy = f"{option('metric-weights', metric_weights or 'DIR')} with {ALEX_WEIGHTS} in lpips/"
    if folder is None:
        raise WeightsMissing(f"{asked}: its weights are needed", remedy=f"{remedy}; docs/metrics.md")
    for path in (folder / name for name in LPIPS_FILES):
        if not path.is_file():
            raise WeightsMissing(f"{asked}: {path} is not there", remedy=f"{remedy}; docs/metrics.md")
    return folder
