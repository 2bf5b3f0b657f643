"""Train a text encoder so that its states tell the attributes that a caption names.

A probe, with one learned query for each attribute that attends over the states, classifies the five attributes. It is
thrown away after training. The encoder is then frozen, so both Wan siblings share it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from budc.policies.nano.architectures.wan import TEXT_WIDTH
from budc.policies.nano.data import captions
from budc.policies.nano.data.captions import MAX_TOKENS, Caption, Split
from budc.policies.nano.training.loop import Loss, Recipe

RECIPE = Recipe(steps=1200, matrix_lr=0.01, other_lr=3e-3, average=0.99, save_every=200)


def embed(encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Encode texts to (B, MAX_TOKENS, TEXT_WIDTH), zero after the end token, as WanPipeline pads them."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    mask = tokens.attention_mask.to(encoder.device)
    states: Tensor = encoder(tokens.input_ids.to(encoder.device), mask).last_hidden_state
    padded: Tensor = states * mask[..., None]
    return padded


class Language(msgspec.Struct, frozen=True):
    """The values of each attribute, and the captions that name them."""

    attributes: Mapping[str, tuple[str, ...]]
    captions: Callable[[Split, int], Iterator[Caption[Any]]]

    def batch(self, split: Split, seed: int, count: int) -> list[Caption[Any]]:
        """Return the first `count` captions of a split and seed."""
        return list(itertools.islice(self.captions(split, seed), count))

    def targets(self, batch: list[Caption[Any]]) -> list[Tensor]:
        """Return, for each attribute, the class indices (B,) in a batch."""
        return [
            torch.tensor([values.index(getattr(caption.scene, name)) for caption in batch])
            for name, values in self.attributes.items()
        ]


CLIPS = Language(
    attributes={
        "colour": captions.COLOURS,
        "shape": captions.SHAPES,
        "size": captions.SIZES,
        "motion": captions.MOTIONS,
        "background": captions.BACKGROUNDS,
    },
    captions=captions.captions,
)


class Probe(nn.Module):
    """An encoder with the classifiers that train it; `states` encodes texts to (B, tokens, width) by `encoder`."""

    def __init__(
        self,
        encoder: nn.Module,
        states: Callable[[list[str]], Tensor],
        width: int = TEXT_WIDTH,
        language: Language = CLIPS,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.states = states
        self.language = language
        self.queries = nn.Parameter(torch.randn(len(language.attributes), width) * 0.1)
        self.heads = nn.ModuleList(nn.Linear(width, len(values)) for values in language.attributes.values())

    def scores(self, states: Tensor) -> list[Tensor]:
        """Return the class scores (B, classes) of each attribute."""
        weights = (self.queries @ states.transpose(1, 2) / states.shape[-1] ** 0.5).softmax(-1)
        pooled = weights @ states
        return [head(pooled[:, index]) for index, head in enumerate(self.heads)]


def text_loss(probe: Probe) -> Loss:
    """Return the loss of one step: cross entropy of the attributes, and a small penalty on the size of the states."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        batch = probe.language.batch("train", int(torch.randint(2**31, (), generator=generator)), 64)
        states = probe.states([caption.text for caption in batch])
        terms = [
            functional.cross_entropy(scores, target.to(scores.device))
            for scores, target in zip(probe.scores(states), probe.language.targets(batch), strict=True)
        ]
        return torch.stack(terms).sum() + 1e-3 * states.square().mean()

    return loss


@torch.no_grad()
def accuracy(probe: Probe, seed: int, count: int = 512) -> float:
    """Return the share of held-out captions of which all five attributes are classified correctly."""
    batch = probe.language.batch("held-out", seed, count)
    states = probe.states([caption.text for caption in batch])
    correct = [
        scores.argmax(-1).cpu() == target
        for scores, target in zip(probe.scores(states), probe.language.targets(batch), strict=True)
    ]
    return float(torch.stack(correct).all(0).float().mean())
