"""XPSNR of Helmrich, Siekmann, Becker, Bosse, Marpe and Wiegand (2020), by the filter of that name in ffmpeg.

A PSNR whose squared errors count less where the reference is busy or moves; in dB. The filter gives that of Y', Cb and
Cr over the clip. They are combined by their errors, 4 : 1 : 1 as the numbers of their samples.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.kind import FrameMetric, MetricKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_PLANES = re.compile(r"^XPSNR average.*? y: *(\S+) +u: *(\S+) +v: *(\S+)", re.M)


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    from budc.compiler.metrics.ffmpeg import LOG, filter_log, find_ffmpeg
    from budc.schema.psnr import PSNR_CAP

    program = find_ffmpeg("xpsnr")

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        log = filter_log(program, f"[reference][frames]xpsnr=stats_file={LOG}", frames, reference)
        found = _PLANES.search(log)
        assert found is not None, log
        y, u, v = map(float, found.groups())
        return min(PSNR_CAP, combined(y, u, v))

    return FrameMetric(measure)


def combined(y: float, u: float, v: float) -> float:
    """Return the XPSNR of a clip from those of its planes in 4:2:0, dB; infinite where all are."""
    error = (4 * 10 ** (-y / 10) + 10 ** (-u / 10) + 10 ** (-v / 10)) / 6
    return -10 * math.log10(error) if error > 0 else math.inf


XPSNR = MetricKind(name="xpsnr", unit="dB", load=_load, medium="video", needs=("imageio-ffmpeg",))
