"""A pipeline's tokenizers, written so that the `tokenizers` package alone makes the same token ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from torch import Tensor

from budc.runtimes.exported.manifest import Cleaning, TextRule
from budc.schema.errors import ParityMismatch, UnsupportedModel

_ANY_PROMPT = "any-prompt"
"""Found again in what a template makes of it."""


class PipelineTokenizer(NamedTuple):
    """A tokenizer as its pipeline uses it: prompts cleaned, put into a template, ids cut or padded at the end.

    There are `tokens` of them then.
    """

    tokenizer: Any
    name: str
    """Name of its folder, in the pipeline and in the export."""
    tokens: int
    cleaning: Cleaning
    template: Callable[[str], str] = str
    """What the pipeline encodes, from a prompt."""

    def ids(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return input_ids and attention_mask, (N, tokens) each, as the pipeline makes them."""
        batch = self.tokenizer(
            [self.template(text) for text in texts],
            padding="max_length",
            max_length=self.tokens,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return batch.input_ids, batch.attention_mask

    def save(self, folder: Path, prompts: Sequence[str]) -> TextRule:
        """Write the tokenizer below `folder` and return its rule, after comparing it on `prompts`.

        Raises:
            UnsupportedModel: the tokenizer has no backend of the `tokenizers` package, or pads at the front, or the
                template changes the prompt.
            ParityMismatch: run by that package alone, it makes other ids of a prompt.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or self.tokenizer.padding_side != "right":
            raise UnsupportedModel(
                f"{self.name}: {type(self.tokenizer).__name__} cannot be run without transformers"
            )
        before, *rest = self.template(_ANY_PROMPT).split(_ANY_PROMPT)
        if len(rest) != 1:
            raise UnsupportedModel(f"{self.name}: its template does not hold the prompt once, as it is")
        # Written as text: `backend.save` would keep the padding and truncation of its last call.
        content = json.loads(backend.to_str()) | {"padding": None, "truncation": None}
        file = f"{self.name}/tokenizer.json"
        (folder / self.name).mkdir()
        (folder / file).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        alone = Tokenizer.from_file(str(folder / file))
        end = self.tokenizer.eos_token_id
        rule = TextRule(
            cleaning=self.cleaning,
            before=before,
            after=rest[0],
            tokens=self.tokens,
            padding_id=self.tokenizer.pad_token_id,
            padding_token=self.tokenizer.pad_token,
            end_id=end if alone.encode("").ids[-1:] == [end] else None,
            tokenizer=file,
        )
        self._compare(alone, rule, [*prompts, "", " ".join(prompts) * rule.tokens])
        return rule

    def _compare(self, alone: Tokenizer, rule: TextRule, texts: Sequence[str]) -> None:
        alone.enable_truncation(rule.tokens)
        alone.enable_padding(length=rule.tokens, pad_id=rule.padding_id, pad_token=rule.padding_token)
        ids, mask = self.ids(texts)
        for text, encoding, expected_ids, expected_mask in zip(
            texts,
            alone.encode_batch([f"{rule.before}{text}{rule.after}" for text in texts]),
            ids.tolist(),
            mask.tolist(),
            strict=True,
        ):
            if encoding.ids != expected_ids or encoding.attention_mask != expected_mask:
                raise ParityMismatch(
                    f"{rule.tokenizer}: makes other tokens of {text[:80]!r} than the pipeline's"
                )
