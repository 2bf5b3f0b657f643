"""Headers of safetensors files: names, dtypes, shapes and byte offsets of the tensors.

The layout is that of huggingface/safetensors: 8 bytes of header length (little endian), a JSON header, the tensors.
Tensors must cover the data part exactly, without holes or overlap, so that digests of tensors cover every byte.
"""

import os
from dataclasses import dataclass
from io import BufferedReader

from budc.schema import canonical
from budc.schema.errors import ArtifactError, UnsafeWeights, WeightsMissing
from budc.schema.files import open_regular

MAX_HEADER = 100_000_000
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file. `start` and `end` are offsets into the file, not into its data part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def open_weights(path: str | os.PathLike[str]) -> BufferedReader:
    """Return the file at `path` opened for reading.

    Raises:
        WeightsMissing: it cannot be opened.
        UnsafeWeights: it is a pipe, a device or a folder, which could have no end.
    """
    try:
        file = open_regular(path)
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"cannot read {path}: {error}") from error
    if file is None:
        raise UnsafeWeights(f"{path} is not a regular file")
    return file


def read_header(file: BufferedReader, path: str | os.PathLike[str]) -> list[TensorEntry]:
    """Return the tensors of an open safetensors file, in the order of their bytes.

    Args:
        file: at offset 0; its position afterwards is undefined.
        path: how messages call the file.

    Raises:
        UnsafeWeights: the file is not well formed.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER, size - 8):
        raise UnsafeWeights(f"{path} is not a safetensors file: its header does not fit in it")
    try:
        header = canonical.parse(file.read(length), limit=MAX_HEADER, what="header")
    except ArtifactError as error:
        raise UnsafeWeights(f"{path} is not a safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise UnsafeWeights(f"{path} is not a safetensors file: its header is not an object")
    data = 8 + length
    entries = [_entry(name, item, data, path) for name, item in header.items() if name != "__metadata__"]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    position = data
    for entry in entries:
        if entry.start != position:
            raise UnsafeWeights(f"{path} has a hole or an overlap before tensor {entry.name!r}")
        position = entry.end
    if position != size:
        raise UnsafeWeights(f"{path} ends at byte {size}, its tensors at {position}")
    return entries


def _entry(name: str, item: object, data: int, path: str | os.PathLike[str]) -> TensorEntry:
    if not isinstance(item, dict) or item.keys() != {"dtype", "shape", "data_offsets"}:
        raise _malformed(name, path)
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(dtype, str) or not _is_sizes(shape) or not _is_sizes(offsets) or len(offsets) != 2:
        raise _malformed(name, path)
    if dtype not in _BITS:
        raise UnsafeWeights(f"{path}: tensor {name!r} has the unknown dtype {dtype!r}")
    elements = 1
    for extent in shape:
        elements *= extent
    start, end = offsets
    if elements * _BITS[dtype] != (end - start) * 8:
        raise UnsafeWeights(f"{path}: tensor {name!r} does not have as many bytes as its shape needs")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _malformed(name, path) from None
    return TensorEntry(name, dtype, tuple(shape), data + start, data + end)


def _malformed(name: str, path: str | os.PathLike[str]) -> UnsafeWeights:
    return UnsafeWeights(f"{path}: the header entry of tensor {name!r} is malformed")


def _is_sizes(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**53 for n in value)
    )
