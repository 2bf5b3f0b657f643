"""Prompts to token ids as the model's own pipeline makes them, with the `tokenizers` package alone."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import ftfy
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from budc.runtimes.exported.manifest import Cleaning, TextRule
from budc.schema.errors import UnsafeWeights
from budc.schema.folder import resolve
from budc.schema.foreign_error import reason_of

Ids = NDArray[np.int64]


class PromptTokenizer:
    """One tokenizer of an export, used by the rule of its manifest.

    Raises:
        WeightsMissing: the tokenizer's file does not exist.
        UnsafeWeights: the file cannot be read, lies outside of the folder, or fails on a prompt.
    """

    def __init__(self, folder: Path, rule: TextRule) -> None:
        path = resolve(folder, rule.tokenizer)
        self._clean = _CLEANINGS[rule.cleaning]
        self._rule = rule
        with _refusing(f"{rule.tokenizer}: the tokenizer cannot be read"):
            self._tokenizer = Tokenizer.from_file(str(path))
            self._tokenizer.enable_truncation(max_length=rule.tokens)
            self._tokenizer.enable_padding(
                length=rule.tokens, pad_id=rule.padding_id, pad_token=rule.padding_token, direction="right"
            )

    def __call__(self, prompts: Sequence[str]) -> tuple[Ids, Ids]:
        """Return input_ids and attention_mask, (N, tokens) each, truncated and padded at the end."""
        rule = self._rule
        with _refusing(f"{rule.tokenizer}: the tokenizer fails"):
            encodings = self._tokenizer.encode_batch(
                [f"{rule.before}{self._clean(prompt)}{rule.after}" for prompt in prompts]
            )
        if any(len(encoding.ids) != self._rule.tokens for encoding in encodings):
            raise UnsafeWeights(
                f"{self._rule.tokenizer} does not make {self._rule.tokens} tokens of a prompt"
            )
        ids = np.asarray([encoding.ids for encoding in encodings], np.int64)
        return ids, np.asarray([encoding.attention_mask for encoding in encodings], np.int64)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn errors of the package `tokenizers` into UnsafeWeights: they follow from the export's file."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of its Rust code is no Exception
        raise UnsafeWeights(f"{what}: {reason_of(error)}") from error


def clean_prompt(prompt: str) -> str:
    """Return a prompt as Wan pipelines clean it: mojibake repaired, HTML entities resolved twice, spaces collapsed."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


_CLEANINGS: Mapping[Cleaning, Callable[[str], str]] = {"wan": clean_prompt, "none": str}
