"""The CLIP tokenizer of the FLUX sibling: byte-level BPE whose merges make one token of every known word."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from budc.policies.nano.data.pictures import vocabulary

CLIP_TOKENS = 24
"""Positions of the CLIP encoder: what a prompt may take, with the two special tokens."""
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_END = "</w>"


def pieces(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Split a word as BPE does: characters, then always the merge of lowest rank."""
    parts = [*word[:-1], word[-1] + _END]
    while len(parts) > 1:
        pairs = list(itertools.pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        parts[at : at + 2] = ["".join(best)]
    return parts


def merges_for(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return merges under which every word is one piece.

    A merge is only ever added behind the others, so it leaves the words before it as they were.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(parts := pieces(word, ranks)) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
    return list(ranks)


def build_clip_tokenizer() -> CLIPTokenizer:
    """Build it: the byte alphabet inside and at the end of a word, one token a merge, the special tokens last.

    The encoder's configuration must name the tokenizer's end token: it pools at that token's position.
    """
    alphabet = sorted(ByteLevel.alphabet())
    merges = merges_for(word for word in vocabulary() if word.isalpha())
    tokens = [
        *alphabet,
        *(letter + _END for letter in alphabet),
        *("".join(pair) for pair in merges),
        BOS,
        EOS,
    ]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        model_max_length=CLIP_TOKENS,
    )
