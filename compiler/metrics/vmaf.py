"""VMAF of Li, Aaron, Katsavounidis, Moorthy and Manohara (2016), by libvmaf in ffmpeg, model vmaf_v0.6.1.

0 to 100, the mean over the frames of a clip. Equal clips need not have exactly 100. Only brightness is compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.kind import FrameMetric, MetricKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEAST_SIDE = 17
"""The width of the model's largest window; libvmaf ends the program on anything smaller."""


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    from budc.compiler.metrics.ffmpeg import LOG, filter_log, find_ffmpeg

    program = find_ffmpeg("libvmaf")
    compare = f"[frames][reference]libvmaf=model=version=vmaf_v0.6.1:log_fmt=json:log_path={LOG}"

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        log = json.loads(filter_log(program, compare, frames, reference))
        return float(log["pooled_metrics"]["vmaf"]["mean"])

    return FrameMetric(measure)


VMAF = MetricKind(name="vmaf", load=_load, medium="video", needs=("imageio-ffmpeg",), least_side=LEAST_SIDE)
