"""A budget that follows from what is asked for: a quality (`psnr>=30`), or the seconds of a generation (`2.0s`)."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from budc.option_names import option, worded
from budc.schema.bounds import Bound, parse_bounds
from budc.schema.errors import UsageError
from budc.schema.report_names import LATENT_MSE, PSNR

_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s)?")
_WORST = ".worst"


def parse_quality(text: str, *, worst: bool, frames: bool) -> Bound:
    """Return the bound that `--quality` asks for; `worst` makes it one of the worst prompt.

    Raises:
        UsageError: not one bound, of another metric than PSNR and latent error, or of PSNR without `frames`.
    """
    name, example = option("quality"), worded("psnr>=30", "latent-mse<=0.01")
    bounds = parse_bounds(text, name)
    if len(bounds) > 1:
        raise UsageError(f"{name}: {text!r} is several bounds", remedy=f"ask for one, such as {example}")
    (bound,) = bounds
    if bound.metric not in (PSNR, LATENT_MSE):
        afterwards = worded("budc evaluate", "budc.evaluate")
        raise UsageError(
            f"{name}: {bound.title} is not measured while a policy is searched",
            remedy=f"ask for a bound such as {example}; `{afterwards}` measures other metrics afterwards",
        )
    if bound.metric == PSNR and not frames:
        raise UsageError(
            f"{name}: {worded('--no-frames leaves no PSNR', 'a network has no frames, and so no PSNR')}",
            remedy=worded("leave out --no-frames", "ask for a bound of latents, such as latent-mse<=0.01"),
        )
    if worst and not bound.figure.endswith(_WORST):
        return replace(bound, figure=f"{bound.metric}{_WORST}")
    return bound


def parse_seconds(text: str) -> float:
    """Return the seconds that `--within` asks for: "2.0s", "800ms", or "2". Raises UsageError."""
    matched = _SECONDS.fullmatch(text.strip())
    seconds = float(matched[1]) / (1000 if matched[2] == "ms" else 1) if matched else math.nan
    if not seconds > 0:
        raise UsageError(
            f"{option('within')}: {text!r} is no length of time",
            remedy=f"give seconds, such as {option('within', '2.0s')}",
        )
    return seconds


def suffix_of(quality: Bound | None, seconds: float | None) -> str | None:
    """Return what the default name of such a policy ends with: "psnr30", "within2s", or None."""
    if quality is not None:
        return f"{quality.figure}{quality.number:g}".replace("+", "")
    return None if seconds is None else f"within{seconds:g}s".replace("+", "")
