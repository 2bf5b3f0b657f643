"""Attacks on weights: safetensors files, and model folders that are not the one that was signed for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from attack_corpus.forge import (
    CONFIG,
    MODEL,
    SCHEDULER,
    SHARD,
    WEIGHTS,
    Case,
    safetensors,
)


def weights() -> dict[str, tuple[bytes, Case]]:
    """Return name → (safetensors file, what it gets when its tensors are read)."""
    good = safetensors(WEIGHTS)
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = int.from_bytes(good[:8], "little")
    files = {
        "empty": (b"", "no header"),
        "pickle": (b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", "a pickle under another name"),
        "zip": (b"PK\x03\x04" + b"\0" * 40, "a zip archive, as torch.save writes"),
        "header-too-long": ((1 << 40).to_bytes(8, "little") + good[8:], "a header longer than the file"),
        "header-not-json": (good[:8] + b"x" * header + good[8 + header :], "a header that is no JSON"),
        "header-deep": ((200_000).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 100_000, "a header nested deep"),
        "header-duplicate": (_header(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'), "one tensor twice"),
        "header-string-without-end": (_header(b'{"' + b'\\"' * 100_000), "a header of escaped quotes without an end"),
        "header-key-last-twice": (_header(b"{" + b",".join(b'"%x":0' % key for key in range(20_000)) + b',"4e1f":0}'), "the last of many tensors, twice"),
        "header-lone-surrogate": (_header(b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'), "half a character for a name"),
        "header-nan": (_header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,0]}}'), "an extent that is not a number"),
        "header-true-for-an-offset": (_header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[false,true]}}') + b"x", "truths for offsets"),
        "header-float-for-an-extent": (_header(b'{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}') + b"x", "an extent in another spelling"),
        "header-many-extents": (_header(b'{"a":{"dtype":"U8","shape":[' + b"1," * 100_000 + b'1],"data_offsets":[0,1]}}') + b"x", "more extents than any tensor has"),
        "header-byte-order-mark": (_header(b"\xef\xbb\xbf{}"), "a byte order mark"),
        "header-length-beyond-64-bits": (b"\xff" * 8 + b"{}", "a length that is negative for a careless reader"),
        "header-a-list": (_header(b"[]"), "a header that is no object"),
        "hole": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [0], "data_offsets": [12, 12]}}), "bytes that no tensor has"),
        "overlap": (safetensors(WEIGHTS, **{"proj.bias": entry}), "two tensors in the same bytes"),
        "beyond-the-end": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [99], "data_offsets": [8, 404]}}), "a tensor beyond the end"),
        "trailing-bytes": (good + b"MZ", "bytes behind the last tensor"),
        "negative-offset": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), "an offset before the data"),
        "shape-disagrees": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [7], "data_offsets": [8, 12]}}), "a shape that the bytes do not fill"),
        "unknown-dtype": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "PICKLE", "shape": [1], "data_offsets": [8, 12]}}), "a dtype that is not known"),
        "huge-shape": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [8, 12]}}), "a product of extents that overflows"),
    }  # fmt: skip
    return {name: (data, Case("UnsafeWeights", why)) for name, (data, why) in files.items()}


def _header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def cut(folder: Path) -> None:
    """Cut the weights' last byte."""
    (folder / SHARD).write_bytes(MODEL[SHARD][:-1])


def flip(folder: Path) -> None:
    """Change the weights' last byte."""
    (folder / SHARD).write_bytes(MODEL[SHARD][:-1] + b"\x41")


def metadata(folder: Path) -> None:
    """Add metadata to the weights' header."""
    (folder / SHARD).write_bytes(safetensors(WEIGHTS, __metadata__={"format": "pt"}))


def linked(relative: str, target: str) -> Callable[[Path], None]:
    """Return a change: a file becomes a link."""

    def change(folder: Path) -> None:
        (folder / relative).unlink()
        (folder / relative).symlink_to(target)

    return change


def outside(folder: Path) -> None:
    """Make the denoiser's folder a link out of the model's."""
    beside = folder.with_name(f"{folder.name}.outside")
    (folder / "transformer").rename(beside)
    (folder / "transformer").symlink_to(beside)


def snapshot(folder: Path) -> None:
    """Make a hub snapshot whose link leads not to a blob but to another file of the cache."""
    (folder / "blobs").mkdir()
    (folder / "secret.json").write_bytes(MODEL[CONFIG])
    revision = folder / "snapshots" / "rev"
    revision.mkdir(parents=True)
    for part in ("transformer", "scheduler"):
        (folder / part).rename(revision / part)
    (revision / CONFIG).unlink()
    (revision / CONFIG).symlink_to("../../../secret.json")


def beside(name: str, data: bytes) -> Callable[[Path], None]:
    """Return a change: another file beside the weights."""
    return lambda folder: (folder / "transformer" / name).write_bytes(data) and None


def remove(relative: str) -> Callable[[Path], None]:
    """Return a change: a file is gone."""
    return lambda folder: (folder / relative).unlink()


def directory(folder: Path) -> None:
    """Put a folder in place of a file."""
    (folder / CONFIG).unlink()
    (folder / CONFIG).mkdir()


def pipe(folder: Path) -> None:
    """Put a named pipe in place of a file."""
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)


def pipe_for_weights(folder: Path) -> None:
    """Put a named pipe in place of the weights."""
    (folder / SHARD).unlink()
    os.mkfifo(folder / SHARD)


def swap(folder: Path) -> None:
    """Exchange two files."""
    (folder / CONFIG).write_bytes(MODEL[SCHEDULER])
    (folder / SCHEDULER).write_bytes(MODEL[CONFIG])


def models() -> dict[str, tuple[Callable[[Path], None], Case]]:
    """Return name → (what is done to a good model folder, what it then gets)."""
    index = json.dumps({"weight_map": {"proj.weight": "evil.safetensors"}}).encode()
    pickle = b"\x80\x04N."
    return {
        "weights-changed": (flip, Case("WeightsMismatch", "a byte of the weights")),
        "weights-cut": (cut, Case("WeightsMismatch", "a download that was cut")),
        "weights-header-edited": (metadata, Case("WeightsMismatch", "the same tensors in another file")),
        "weights-missing": (remove(SHARD), Case("WeightsMissing", "no weights")),
        "config-missing": (remove(CONFIG), Case("WeightsMissing", "no configuration")),
        "config-swapped": (swap, Case("WeightsMismatch", "two files in each other's place")),
        "scheduler-changed": (
            lambda folder: (folder / SCHEDULER).write_bytes(b'{"shift": 9}') and None,
            Case("WeightsMismatch", "another sampler"),
        ),
        "link-absolute": (linked(CONFIG, "/etc/hostname"), Case("UnsafeWeights", "a link out of the folder")),
        "link-parent": (linked(CONFIG, "../../../valid.budc.json"), Case("UnsafeWeights", "a link out of the folder")),
        "link-loop": (linked(CONFIG, "config.json"), Case("WeightsMissing", "a link to itself")),
        "link-dangling": (linked(CONFIG, "gone.json"), Case("WeightsMissing", "a link to nothing")),
        "link-folder": (outside, Case("UnsafeWeights", "a folder that is a link out")),
        "link-device": (linked(CONFIG, "/dev/zero"), Case("UnsafeWeights", "a link to a device without end")),
        "snapshot-link-beside-blobs": (snapshot, Case("UnsafeWeights", "a hub snapshot that leads to no blob")),
        "folder-for-a-file": (directory, Case("UnsafeWeights", "a folder in place of a file")),
        "pipe-for-a-file": (pipe, Case("UnsafeWeights", "a named pipe in place of a file")),
        "pipe-for-weights": (pipe_for_weights, Case("UnsafeWeights", "a named pipe in place of the weights")),
        "rival-pickle": (beside("pytorch_model.bin", pickle), Case("UnsafeWeights", "a pickle beside the weights")),
        "rival-checkpoint": (beside("model.ckpt", pickle), Case("UnsafeWeights", "a pickle beside the weights")),
        "rival-shard": (beside("evil.safetensors", MODEL[SHARD]), Case("UnsafeWeights", "weights that are not listed")),
        "rival-index": (
            beside("diffusion_pytorch_model.safetensors.index.json", index),
            Case("UnsafeWeights", "an index that redirects to other weights"),
        ),
        "rival-onnx": (beside("model.onnx", b"\x08\x07"), Case("UnsafeWeights", "a graph that is not listed")),
        "rival-onnx-data": (beside("model.onnx.data", b"\0"), Case("UnsafeWeights", "external data that is not listed")),
    }  # fmt: skip
