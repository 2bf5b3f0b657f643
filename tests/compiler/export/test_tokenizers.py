"""Tokenizers without transformers."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


from budc.compiler.export.components import load_components  # noqa: E402
from budc.policies.profile import load_profile, read_prompts  # noqa: E402
from budc.runtimes.exported.manifest import read_manifest  # noqa: E402
from budc.schema.errors import ParityMismatch  # noqa: E402

PROFILE = load_profile("wan2.1-nano")
PROMPTS = ("a small red circle moves left over stripes", "a big blue box", "")


def test_the_tokenizer_alone_makes_the_pipelines_tokens(exported: Path, wan_folder: Path) -> None:
    from tokenizers import Tokenizer

    components = load_components(wan_folder, PROFILE, torch.float32)
    rule = read_manifest(exported).text
    alone = Tokenizer.from_file(str(exported / rule.tokenizer))
    texts = [*read_prompts(PROFILE.prompts.held_out, 8), "", "Ünïcode & ½", "red " * 100]
    ids, _ = components.tokenizer.ids(texts)
    alone.enable_truncation(rule.tokens)
    alone.enable_padding(length=rule.tokens, pad_id=rule.padding_id, pad_token=rule.padding_token)
    assert [encoded.ids for encoded in alone.encode_batch(texts)] == ids.tolist()
    assert rule.end_id == 1
    assert ids[-1, -1] == rule.end_id


def test_a_tokenizer_that_reads_otherwise_alone_is_refused(wan_folder: Path, tmp_path: Path) -> None:
    class Other:
        """A tokenizer that is not what its backend is."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            batch = self.inner(*args, **kwargs)
            batch["input_ids"] += 1
            return batch

    own = load_components(wan_folder, PROFILE, torch.float32).tokenizer
    with pytest.raises(ParityMismatch, match=r"tokenizer\.json"):
        own._replace(tokenizer=Other(own.tokenizer)).save(tmp_path, PROMPTS)
