"""Files of tensors are named after what they hold, whatever a user called it."""

import pytest
import torch

from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import file_name, stored_chunks

LABELS = ("lora=/a/b.safetensors full", "negative=" + "ö" * 300, "negative=a\0b", "..", "negative=../x")


def test_a_plain_label_is_the_name():
    assert file_name("scheduler=euler policy 3") == "scheduler=euler-policy-3"


def test_every_label_has_a_name_of_its_own():
    names = {file_name(label) for label in (*LABELS, "negative=a/x", "negative=a?x")}
    assert len(names) == len(LABELS) + 2
    assert all(len(name) < 120 and "/" not in name for name in names)


@pytest.mark.parametrize("label", LABELS)
def test_chunks_of_any_label_are_stored_and_found(tmp_path, label):
    with Journal(tmp_path / "journal", "print") as journal:
        for expected in (False, True):
            (chunk,) = stored_chunks(journal, label, 1, ["x"], lambda *_: ({"x": torch.ones(1)}, 0))
            assert (chunk.replayed, chunk.tensors["x"].tolist()) == (expected, [1.0])
