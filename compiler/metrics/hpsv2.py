"""HPSv2.1 of Wu, Hao, Sun, Chen, Zhu, Zhao and Li (2023): how well people like an image for its prompt.

100 times the cosine of a CLIP ViT-H/14 that was trained on preferences; about 20 to 40. The image is fitted into a
square with black borders, as its authors do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from budc.compiler.metrics.kind import FrameMetric, MetricKind

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def vit_h_14() -> Any:
    """Return the configuration of open_clip's ViT-H-14."""
    from transformers import CLIPConfig

    text = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    }
    vision = {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024)


def _load(weights: Path | None, device: torch.device) -> FrameMetric:
    from budc.compiler.metrics.clip_network import Clip, from_open_clip
    from budc.compiler.metrics.crops import pad_to_square
    from budc.compiler.metrics.weights import read_tensors

    assert weights is not None
    path = weights / "HPS_v2.1_compressed.safetensors"
    clip = Clip(from_open_clip(read_tensors(path), vit_h_14(), path), weights, device, pad_to_square)

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        return 100 * float(clip.cosines(frames, prompt).mean())

    return FrameMetric(measure)


HPSV2 = MetricKind(
    name="hpsv2.1",
    load=_load,
    medium="image",
    compares=False,
    weights="HPS_v2.1_compressed.safetensors and the tokenizer of CLIP",
)
