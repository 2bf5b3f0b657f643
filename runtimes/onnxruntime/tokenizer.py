"""Prompts to token ids as the model's own pipeline makes them, with the `tokenizers` package alone."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ftfy
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from budc.runtimes.exported.manifest import Cleaning, TextRule
from budc.schema.errors import UnsafeWeights
from budc.schema.folder import resolve

Ids = NDArray[np.int64]


class PromptReader:
    """Turns prompts into what a text encoder's graph takes.

    Raises:
        UnsafeWeights: the tokenizer's file cannot be read.
    """

    def __init__(self, folder: Path, rule: TextRule) -> None:
        path = resolve(folder, rule.tokenizer)
        self._clean = _CLEANINGS[rule.cleaning]
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # The package raises nothing narrower.
            reason = str(error).splitlines()[0]
            raise UnsafeWeights(f"{rule.tokenizer}: the tokenizer cannot be read: {reason}") from error
        self._tokenizer.enable_truncation(max_length=rule.tokens)
        self._tokenizer.enable_padding(
            length=rule.tokens, pad_id=rule.padding_id, pad_token=rule.padding_token, direction="right"
        )

    def __call__(self, prompts: Sequence[str]) -> tuple[Ids, Ids]:
        """Return input_ids and attention_mask, both (N, tokens): cut and padded at the end."""
        encoded = self._tokenizer.encode_batch([self._clean(prompt) for prompt in prompts])
        ids = np.asarray([one.ids for one in encoded], np.int64)
        return ids, np.asarray([one.attention_mask for one in encoded], np.int64)


def clean(prompt: str) -> str:
    """Return a prompt as Wan pipelines read it: mojibake repaired, entities resolved twice, one blank for many."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


_CLEANINGS: Mapping[Cleaning, Callable[[str], str]] = {"wan": clean, "none": str}
