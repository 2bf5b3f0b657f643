"""The two text encoders of FLUX, used as its pipeline uses them: T5's token states and CLIP's pooled state."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5EncoderModel

from budc.policies.nano.data import captions, pictures
from budc.policies.nano.text.clip_tokenizer import CLIP_TOKENS
from budc.policies.nano.training.loop import Recipe
from budc.policies.nano.training.text_encoder import Language

RECIPE = Recipe(steps=900, matrix_lr=0.01, other_lr=3e-3, average=0.99, save_every=200)
PICTURES = Language(
    attributes={
        "colour": captions.COLOURS,
        "shape": captions.SHAPES,
        "size": captions.SIZES,
        "place": pictures.PLACES,
        "background": captions.BACKGROUNDS,
    },
    captions=pictures.captions,
)


def _tokens(tokenizer: CLIPTokenizer | PreTrainedTokenizerFast, texts: list[str], length: int) -> Tensor:
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def token_states(encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """Encode texts by T5 to (B, MAX_TOKENS, TEXT_WIDTH); padding is not masked, as in FluxPipeline."""
    ids = _tokens(tokenizer, texts, pictures.MAX_TOKENS).to(encoder.device)
    states: Tensor = encoder(ids).last_hidden_state
    return states


def pooled_state(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Encode texts by CLIP to (B, POOLED_WIDTH): the state of the end token."""
    ids = _tokens(tokenizer, texts, CLIP_TOKENS).to(encoder.device)
    state: Tensor = encoder(ids).pooler_output
    return state


class TextEncoders:
    """Both encoders, frozen."""

    def __init__(
        self,
        clip: CLIPTextModel,
        t5: T5EncoderModel,
        clip_tokenizer: CLIPTokenizer,
        t5_tokenizer: PreTrainedTokenizerFast,
    ) -> None:
        self.clip, self.t5 = clip.eval().requires_grad_(False), t5.eval().requires_grad_(False)
        self.clip_tokenizer, self.t5_tokenizer = clip_tokenizer, t5_tokenizer

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """Encode texts to inputs of FluxTransformer2DModel: token states, pooled state, position ids of the text."""
        states = token_states(self.t5, self.t5_tokenizer, texts)
        return {
            "encoder_hidden_states": states,
            "pooled_projections": pooled_state(self.clip, self.clip_tokenizer, texts),
            "txt_ids": states.new_zeros(states.shape[1], 3),
        }
