"""Text encoders whose prompts have any length: token states padded to one length, and a mask of those that are text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from budc.compiler.export.sources import UNUSED_INPUT, GraphSource
from budc.compiler.export.tokenizers import PipelineTokenizer


class _MaskedText(nn.Module):
    """Token states, zero where there is no token, and the mask.

    `states` makes states (N, tokens, width) from token ids; it may leave out the first ones. It must be causal: what
    stands after a prompt then changes nothing, so that it needs no mask itself.
    """

    def __init__(self, states: nn.Module) -> None:
        super().__init__()
        self.states = states

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, _pooled_input_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        states: Tensor = self.states(input_ids)
        mask = attention_mask[:, input_ids.shape[1] - states.shape[1] :]
        return torch.where(mask[..., None] > 0, states, torch.zeros((), dtype=states.dtype)), mask.clone()


def masked_text_source(
    states: nn.Module, tokenizer: PipelineTokenizer, prompts: Sequence[str]
) -> GraphSource:
    """Return the source of a causal text encoder, with `prompts` as example inputs."""
    ids, mask = tokenizer.ids(prompts)
    return GraphSource(
        "text_encoder",
        _MaskedText(states).eval(),
        {"input_ids": ids, "attention_mask": mask, "pooled_input_ids": UNUSED_INPUT},
        ("encoder_hidden_states", "encoder_attention_mask"),
    )
