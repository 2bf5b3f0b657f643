"""Prompts tokenized without transformers, against the pipeline's own tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")

from budc.policies.profile import find_weights, load_profile
from budc.runtimes.exported.manifest import TextRule
from budc.runtimes.onnxruntime.tokenizer import PromptTokenizer, clean_prompt
from budc.schema.errors import UnsafeWeights, WeightsMissing

PROMPTS = (
    "a small red circle moves to the left over stripes",
    "A BIG  Blue\tbox\n drifts up ",
    "caf\u00c3\u00a9 &amp;amp; &lt;b&gt; &quot;quoted&quot;",
    "",
    "one, two! " * 40,
    "\u3000full\u00a0width\u2003blanks \ufb01ne",
)


def rule(**fields: Any) -> TextRule:
    settings: dict[str, Any] = {
        "cleaning": "wan", "tokens": 32, "padding_id": 0, "padding_token": "<pad>", "end_id": 1,
        "tokenizer": "tokenizer/tokenizer.json",
    }  # fmt: skip
    return TextRule(**(settings | fields))


@pytest.mark.parametrize("tokens", [8, 32, 512])
def test_ids_and_mask_are_those_of_the_pipeline(tokens: int) -> None:
    transformers = pytest.importorskip("transformers")
    from diffusers.pipelines.wan.pipeline_wan import prompt_clean

    folder = find_weights(load_profile("wan2.1-nano"), None)
    expected = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")(
        [prompt_clean(prompt) for prompt in PROMPTS],
        padding="max_length",
        max_length=tokens,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="np",
    )
    ids, mask = PromptTokenizer(folder, rule(tokens=tokens))(PROMPTS)
    assert ids.dtype == mask.dtype == np.int64
    np.testing.assert_array_equal(ids, expected.input_ids)
    np.testing.assert_array_equal(mask, expected.attention_mask)


def test_cleaning() -> None:
    assert clean_prompt(" caf\u00c3\u00a9 \n &amp;lt;b&amp;gt;  x ") == "caf\u00e9 <b> x"


def test_a_damaged_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(WeightsMissing, match=r"tokenizer/tokenizer\.json"):
        PromptTokenizer(tmp_path, rule())
    (tmp_path / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(UnsafeWeights, match=r"tokenizer/tokenizer\.json: the tokenizer cannot be read"):
        PromptTokenizer(tmp_path, rule())


TOKENIZER: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None, "model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"},
}  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Nothing"}},
        {"model": None},
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "gone"}},
        {"post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "X", "type_id": 0}}], "pair": [], "special_tokens": {},
        }},
        {"post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "X", "type_id": 0}}] * 40, "pair": [],
            "special_tokens": {"X": {"id": "X", "ids": [1], "tokens": ["X"]}},
        }},
    ],
    ids=["panics when it is read", "of another form", "no model", "fails", "panics on a prompt", "makes other lengths"],
)  # fmt: skip
def test_a_strangers_tokenizer_ends_in_no_other_error(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A panic of the package's Rust code is no Exception, so it would pass every `except Exception`."""
    (tmp_path / "tokenizer").mkdir()
    path = tmp_path / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps(TOKENIZER))
    assert PromptTokenizer(tmp_path, rule(tokens=8))(["a"])[0].tolist() == [[0] + [0] * 7]
    path.write_text(json.dumps(TOKENIZER | fields))
    with pytest.raises(UnsafeWeights, match=r"tokenizer/tokenizer\.json"):
        PromptTokenizer(tmp_path, rule(tokens=8))(["a strange prompt"])


def test_a_prompt_is_put_into_its_template_after_it_was_cleaned(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    words = {"type": "WordLevel", "vocab": {"a": 0, "?": 1, "<|user|>": 2, "<|end|>": 3}, "unk_token": "?"}
    path = tmp_path / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps(TOKENIZER | {"model": words, "pre_tokenizer": {"type": "WhitespaceSplit"}}))
    chat = rule(tokens=6, before="<|user|>\n", after="\n<|end|>")
    ids, mask = PromptTokenizer(tmp_path, chat)([" a  &amp; a ", ""])
    assert ids.tolist() == [[2, 0, 1, 0, 3, 0], [2, 3, 0, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]]


def test_a_tokenizer_is_not_read_through_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "export" / "tokenizer").mkdir(parents=True)
    (tmp_path / "elsewhere.json").write_text("{}")
    (tmp_path / "export" / "tokenizer" / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(UnsafeWeights, match="out of the model folder"):
        PromptTokenizer(tmp_path / "export", rule())
