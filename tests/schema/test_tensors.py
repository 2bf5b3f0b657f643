import json
import os
from pathlib import Path
from typing import Any

import pytest

from budc.schema.errors import UnsafeWeights, WeightsMissing
from budc.schema.tensors import TensorEntry, open_weights, read_header


def pack(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def read(path: Path, content: bytes) -> list[TensorEntry]:
    path.write_bytes(content)
    with open_weights(path) as file:
        return read_header(file, path)


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": tensor("F16", [2, 3], [4, 16]), "a": tensor()}
    content = pack(header, bytes(16))
    start = len(content) - 16
    assert read(tmp_path / "w", content) == [
        TensorEntry("a", "F32", (1,), start, start + 4),
        TensorEntry("b", "F16", (2, 3), start + 4, start + 16),
    ]


def test_empty_scalar_and_packed_tensors_are_read(tmp_path: Path) -> None:
    header = {
        "none": tensor("F32", [0, 5], [0, 0]),
        "one": tensor("F64", [], [0, 8]),
        "f4": tensor("F4", [4], [8, 10]),
    }
    assert {entry.name for entry in read(tmp_path / "w", pack(header, bytes(10)))} == {"none", "one", "f4"}


EMPTY = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
BAD: dict[str, bytes] = {
    "empty": b"",
    "seven-bytes": bytes(7),
    "header-beyond-the-end": (100).to_bytes(8, "little") + b"{}",
    "header-of-exabytes": b"\xff" * 8,
    "not-json": pack(b"pickle"),
    "not-an-object": pack([1]),
    "duplicate-name": pack(b'{"a":%b,"a":%b}' % (EMPTY, EMPTY)),
    "deep": pack(b'{"__metadata__":' + b"[" * 100 + b"]" * 100 + b"}"),
    "entry-not-an-object": pack({"a": 1}),
    "entry-with-more": pack({"a": {**tensor(), "file": "../x"}}, bytes(4)),
    "entry-with-less": pack({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "dtype-not-text": pack({"a": tensor(dtype=1)}, bytes(4)),
    "dtype-unknown": pack({"a": tensor(dtype="PICKLE")}, bytes(4)),
    "shape-not-a-list": pack({"a": tensor(shape=1)}, bytes(4)),
    "shape-negative": pack({"a": tensor(shape=[-1])}, bytes(4)),
    "shape-bool": pack({"a": tensor(shape=[True])}, bytes(4)),
    "shape-too-small": pack({"a": tensor(shape=[2])}, bytes(4)),
    "offsets-three": pack({"a": tensor(offsets=[0, 4, 4])}, bytes(4)),
    "offsets-backwards": pack({"a": tensor(offsets=[4, 0])}, bytes(4)),
    "bits-not-whole-bytes": pack({"a": tensor("F4", [3], [0, 2])}, bytes(2)),
    "hole": pack({"a": tensor(), "b": tensor(offsets=[8, 12])}, bytes(12)),
    "overlap": pack({"a": tensor(), "b": tensor(offsets=[2, 6])}, bytes(6)),
    "bytes-left-over": pack({"a": tensor()}, bytes(5)),
    "bytes-missing": pack({"a": tensor()}, bytes(3)),
    "name-not-unicode": pack(b'{"\\ud800":%b}' % EMPTY),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeWeights):
        read(tmp_path / "w", BAD[name])


def test_pipes_devices_and_folders_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(UnsafeWeights, match="not a regular file"):
            open_weights(path)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        open_weights(tmp_path / "w")
