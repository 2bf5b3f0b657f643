"""The CLIP tokenizer of the FLUX sibling: byte-level BPE with merges that make every known word one token."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from budc.policies.nano.data.pictures import vocabulary

CLIP_TOKENS = 24
"""Length in tokens of the longest prompt, the two special tokens included: the positions of the CLIP encoder."""
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_END = "</w>"


def pieces(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Split a word as BPE does: into characters, then merge the pair of lowest rank as long as there is one."""
    symbols = [*word[:-1], word[-1] + _END]
    while len(symbols) > 1:
        pairs = list(itertools.pairwise(symbols))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        index = pairs.index(best)
        symbols[index : index + 2] = ["".join(best)]
    return symbols


def merges_for(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return merges under which every word is one piece.

    A new merge comes after the others, so earlier words stay one piece.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(symbols := pieces(word, ranks)) > 1:
            ranks[symbols[0], symbols[1]] = len(ranks)
    return list(ranks)


def build_clip_tokenizer() -> CLIPTokenizer:
    """Build it: bytes inside and at the end of a word, one token for each merge, then the special tokens.

    The encoder's configuration must name the tokenizer's end token, because it pools at that token's position.
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
