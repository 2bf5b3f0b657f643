"""CLIP score of Hessel, Holtzman, Forbes, Le Bras and Choi (2021), as 100 · max(0, cosine) of a frame and its prompt.

0 to 100, the mean over frames. Each frame's shorter side is resized to the network's and its middle square is looked
at; text beyond the network's length is cut. Figures of different CLIP models cannot be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.kind import FrameMetric, MetricKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    from budc.compiler.metrics.clip_network import Clip, load_clip
    from budc.compiler.metrics.crops import centre_crop

    assert weights is not None
    clip = Clip(load_clip(weights), weights, device, centre_crop)

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        return 100 * float(clip.cosines(frames, prompt).clamp_min(0).mean())

    return FrameMetric(measure)


CLIP_SCORE = MetricKind(
    name="clip-score",
    load=_load,
    compares=False,
    weights="a CLIPModel of transformers with its tokenizer: config.json, model.safetensors, tokenizer.json",
)
