"""Why a file of a model is not the one that a policy lists, where that can be told from the file itself."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from budc.schema.errors import UnsafeWeights
from budc.schema.tensors import open_weights, read_header

_POINTER = b"version https://git-lfs.github.com/spec/"
_TEXT_LIMIT = 1 << 20


class Diagnosis(NamedTuple):
    """What is wrong with a file, and what to do."""

    what: str
    remedy: str


def diagnose(path: Path, expected: str | None = None) -> Diagnosis | None:
    """Say why the file at `path` is not whole, or has not the sha256 `expected` (hex); None where nothing shows it.

    Raises:
        WeightsMissing: it cannot be read.
    """
    with open_weights(path) as file:
        text = file.read(_TEXT_LIMIT)
    if text.startswith(_POINTER):
        return Diagnosis(
            "is a Git LFS pointer, not the file that it points to", "run git lfs pull in that folder"
        )
    if path.suffix == ".safetensors":
        try:
            with open_weights(path) as file:
                read_header(file, path)
        except UnsafeWeights as error:
            return Diagnosis(f"is incomplete or damaged ({error})", "download it again")
    with_line_feeds = text.replace(b"\r\n", b"\n")
    if with_line_feeds != text and hashlib.sha256(with_line_feeds).hexdigest() == expected:
        return Diagnosis(
            "is the file that the policy lists, but with line ends of Windows (CRLF)",
            "download it again, or clone with git config core.autocrlf false",
        )
    return None
