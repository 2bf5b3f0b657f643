"""Train a text encoder: its states must tell what the caption says.

A throw-away probe, one learned query per attribute that attends over the states, classifies the five
attributes of the scene. The encoder is frozen afterwards, so both Wan siblings read the same language.
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
from budc.policies.nano.data import captions as language
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
    """What a probe reads: the values of each attribute, and the captions that name them."""

    attributes: Mapping[str, tuple[str, ...]]
    captions: Callable[[Split, int], Iterator[Caption[Any]]]

    def batch(self, split: Split, seed: int, count: int) -> list[Caption[Any]]:
        """Draw some captions of a split."""
        return list(itertools.islice(self.captions(split, seed), count))

    def targets(self, batch: list[Caption[Any]]) -> list[Tensor]:
        """Return each attribute's class numbers in a batch."""
        return [
            torch.tensor([values.index(getattr(caption.scene, name)) for caption in batch])
            for name, values in self.attributes.items()
        ]


CLIPS = Language(
    attributes={
        "colour": language.COLOURS,
        "shape": language.SHAPES,
        "size": language.SIZES,
        "motion": language.MOTIONS,
        "background": language.BACKGROUNDS,
    },
    captions=language.captions,
)


class Probe(nn.Module):
    """An encoder and the classifiers that are thrown away after training.

    `states` turns texts into (B, tokens, width) by `encoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        states: Callable[[list[str]], Tensor],
        width: int = TEXT_WIDTH,
        spoken: Language = CLIPS,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.states = states
        self.spoken = spoken
        self.queries = nn.Parameter(torch.randn(len(spoken.attributes), width) * 0.1)
        self.heads = nn.ModuleList(nn.Linear(width, len(values)) for values in spoken.attributes.values())

    def scores(self, states: Tensor) -> list[Tensor]:
        """Class scores of every attribute from states."""
        weights = (self.queries @ states.transpose(1, 2) / states.shape[-1] ** 0.5).softmax(-1)
        pooled = weights @ states
        return [head(pooled[:, index]) for index, head in enumerate(self.heads)]


def text_loss(probe: Probe) -> Loss:
    """Return the loss of one step: cross entropy over the attributes, and a little for the size of states."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        batch = probe.spoken.batch("train", int(torch.randint(2**31, (), generator=generator)), 64)
        states = probe.states([caption.text for caption in batch])
        terms = [
            functional.cross_entropy(scores, target.to(scores.device))
            for scores, target in zip(probe.scores(states), probe.spoken.targets(batch), strict=True)
        ]
        return torch.stack(terms).sum() + 1e-3 * states.square().mean()

    return loss


@torch.no_grad()
def accuracy(probe: Probe, seed: int, count: int = 512) -> float:
    """Measure how often all five attributes of a held-out caption are read correctly."""
    batch = probe.spoken.batch("held-out", seed, count)
    states = probe.states([caption.text for caption in batch])
    right = [
        scores.argmax(-1).cpu() == target
        for scores, target in zip(probe.scores(states), probe.spoken.targets(batch), strict=True)
    ]
    return float(torch.stack(right).all(0).float().mean())
