"""The network of ImageReward: BLIP in the classes of transformers, with the tensors of its authors, and their head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from budc.compiler.metrics.crops import centre_crop, normalised
from budc.compiler.metrics.weights import load_tokenizer, read_tensors, take, with_weights

_FILE = "ImageReward.safetensors"
_LENGTH = 35
_MEAN, _DEVIATION = 0.16717362830052426, 1.0333394966054072
"""Of the head's numbers over the authors' images."""
_ADDED_TOKENS = 2
"""Of BLIP's vocabulary, which a prompt does not have."""
_HEAD = (1024, 128, 64, 16, 1)

_RENAMED = (
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.position_embedding", "pos_embed"),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("encoder.layers.", "blocks."),
    (".self_attn.qkv.", ".attn.qkv."),
    (".self_attn.projection.", ".attn.proj."),
    (".layer_norm", ".norm"),
    ("post_layernorm.", "norm."),
)
"""Names of transformers in the vision model, and what the authors call the same; those of the text model are theirs."""


def blip_large() -> tuple[Any, Any]:
    """Return the configurations of BLIP's text model, a BERT, and its vision model, a ViT-L/16."""
    text = BlipTextConfig(num_attention_heads=12, encoder_hidden_size=1024)
    vision = BlipVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=224,
        layer_norm_eps=1e-6,
    )
    return text, vision


class Reward(nn.Module):
    """A number for each frame (N, 3, rows, columns) in 0..1 with a prompt."""

    def __init__(self, text: Any, vision: Any, head: nn.Sequential, tokenizer: Any) -> None:
        super().__init__()
        self.text, self.vision, self.head, self._tokenizer = text, vision, head, tokenizer

    @torch.no_grad()
    def forward(self, frames: Tensor, prompt: str) -> Tensor:
        """Return the rewards (N,), on the network's device."""
        device = next(self.head.parameters()).device
        tokens = self._tokenizer(prompt, truncation=True, max_length=_LENGTH, return_tensors="pt")
        pixels = normalised(centre_crop(frames.to(device), self.vision.config.image_size))
        seen = self.vision(pixel_values=pixels).last_hidden_state
        read = self.text(
            input_ids=tokens.input_ids.to(device).expand(len(frames), -1), encoder_hidden_states=seen
        ).last_hidden_state
        numbers: Tensor = self.head(read[:, 0])[:, 0]
        return (numbers - _MEAN) / _DEVIATION


def load_reward(folder: Path, device: torch.device) -> Reward:
    """Return the network with the weights and the tokenizer of a folder.

    Raises:
        ModelError: a file is missing, not safe or another network's.
    """
    text, vision = blip_large()
    tokenizer = load_tokenizer(BertTokenizer, folder, text.vocab_size - _ADDED_TOKENS)
    path = folder / _FILE
    tensors = read_tensors(path)

    def weight(file_name: Callable[[str], str]) -> Callable[[str, tuple[int, ...]], Tensor]:
        return lambda name, shape: take(tensors, file_name(name), shape, path)

    return Reward(
        with_weights(
            lambda: BlipTextModel(text, add_pooling_layer=False), weight("blip.text_encoder.{}".format)
        ),
        with_weights(lambda: BlipVisionModel(vision), weight(_vision_name)),
        with_weights(lambda: _head(text.hidden_size), weight("mlp.layers.{}".format)),
        tokenizer,
    ).to(device)


def _vision_name(name: str) -> str:
    for ours, theirs in _RENAMED:
        name = name.replace(ours, theirs)
    return f"blip.visual_encoder.{name}"


def _head(width: int) -> nn.Sequential:
    """Return the head: linear layers with nothing between them but dropout, which is off."""
    layers: list[nn.Module] = []
    for wider, narrower in zip((width, *_HEAD), _HEAD, strict=False):
        layers.append(nn.Linear(wider, narrower))
        if narrower > 16:
            layers.append(nn.Identity())
    return nn.Sequential(*layers)
