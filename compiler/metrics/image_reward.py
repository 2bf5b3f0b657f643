"""ImageReward of Xu, Liu, Wu, Tong, Li, Ding, Tang and Dong (2023): how well people like an image for its prompt.

Without bounds; mean 0 and deviation 1 over its authors' images. A BLIP reads the prompt, 35 tokens of it, while it
looks at the image's middle square, and a head of linear layers makes a number of its first token.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.kind import FrameMetric, MetricKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    from budc.compiler.metrics.image_reward_network import load_reward

    assert weights is not None
    reward = load_reward(weights, device)

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        return float(reward(frames.transpose(0, 1), prompt).mean())

    return FrameMetric(measure)


IMAGE_REWARD = MetricKind(
    name="image-reward",
    load=_load,
    medium="image",
    compares=False,
    weights="ImageReward.safetensors and the tokenizer of bert-base-uncased",
)
