"""Train the shared text encoder: its token states must tell what the caption says.

A throw-away probe, one learned query per attribute that attends over the token states, classifies the five
attributes of the scene. The encoder is frozen afterwards, so both siblings read the same language.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from budc.policies.nano import captions as language
from budc.policies.nano.captions import MAX_TOKENS, Caption, captions
from budc.policies.nano.components import TEXT_WIDTH
from budc.policies.nano.fit import Loss, Recipe

RECIPE = Recipe(steps=1200, matrix_lr=0.01, other_lr=3e-3, average=0.99, save_every=200)
_ATTRIBUTES = {
    "colour": language.COLOURS,
    "shape": language.SHAPES,
    "size": language.SIZES,
    "motion": language.MOTIONS,
    "background": language.BACKGROUNDS,
}


def embed(encoder: UMT5EncoderModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Encode texts to (B, MAX_TOKENS, TEXT_WIDTH), zero after the end token, as WanPipeline pads them."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    mask = tokens.attention_mask.to(encoder.device)
    states: Tensor = encoder(tokens.input_ids.to(encoder.device), mask).last_hidden_state
    padded: Tensor = states * mask[..., None]
    return padded


class Probe(nn.Module):
    """The encoder and the classifiers that are thrown away after training."""

    def __init__(self, encoder: UMT5EncoderModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.queries = nn.Parameter(torch.randn(len(_ATTRIBUTES), TEXT_WIDTH) * 0.1)
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, len(values)) for values in _ATTRIBUTES.values())

    def scores(self, states: Tensor) -> list[Tensor]:
        """Class scores of every attribute from token states."""
        weights = (self.queries @ states.transpose(1, 2) / TEXT_WIDTH**0.5).softmax(-1)
        pooled = weights @ states
        return [head(pooled[:, index]) for index, head in enumerate(self.heads)]


def _targets(batch: list[Caption]) -> list[Tensor]:
    return [
        torch.tensor([values.index(getattr(caption.scene, name)) for caption in batch])
        for name, values in _ATTRIBUTES.items()
    ]


def text_loss(probe: Probe, tokenizer: PreTrainedTokenizerFast) -> Loss:
    """Return the loss of one step: cross entropy over the attributes, and a little for the size of states."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**31, (), generator=generator))
        batch = list(itertools.islice(captions("train", seed), 64))
        states = embed(probe.encoder, tokenizer, [caption.text for caption in batch])
        terms = [
            functional.cross_entropy(scores, target.to(scores.device))
            for scores, target in zip(probe.scores(states), _targets(batch), strict=True)
        ]
        return torch.stack(terms).sum() + 1e-3 * states.square().mean()

    return loss


@torch.no_grad()
def accuracy(probe: Probe, tokenizer: PreTrainedTokenizerFast, seed: int, count: int = 512) -> float:
    """Measure how often all five attributes of a held-out caption are read correctly."""
    batch = list(itertools.islice(captions("held-out", seed), count))
    states = embed(probe.encoder, tokenizer, [caption.text for caption in batch])
    right = [
        scores.argmax(-1).cpu() == target
        for scores, target in zip(probe.scores(states), _targets(batch), strict=True)
    ]
    return float(torch.stack(right).all(0).float().mean())
