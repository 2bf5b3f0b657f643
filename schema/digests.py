"""Digests of models: of files, of tensors whatever files hold them, and of an architecture.

    tensor root     sha256 over "budc.tensors.v1" and every tensor's (name, dtype, shape, sha256 of its bytes)
    architecture    sha256 over "budc.architecture.v1" and every tensor's (name, shape)

Tensors are sorted by name in UTF-8. Strings and digests are preceded by their length, shapes by their rank,
all numbers being 8 bytes big endian. The tensor root survives resharding and header edits, the architecture
digest casts as well; it cannot tell a fine-tune. Only files are identity: see `check_files`.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from budc.schema import folder as model_folder
from budc.schema.errors import UnsafeWeights, UnsupportedModel, WeightsMismatch, WeightsMissing
from budc.schema.file_diagnosis import diagnose
from budc.schema.hashing import Scan, scan_files, sha256_files
from budc.schema.policy import Variant
from budc.schema.semantics import check_suffix
from budc.schema.tensors import TensorEntry, open_weights, read_header

TENSORS, ARCHITECTURE = b"budc.tensors.v1", b"budc.architecture.v1"
TENSOR_SUBJECT = TENSORS.decode()
"""How a statement calls the digest of a subject that is a tensor root."""
"""Tags that the two digests start with."""

FileDigests = Callable[[Iterable[Path]], Mapping[Path, str]]
"""Returns path -> sha256 in hex: `sha256_files`, or a `DigestCache`."""


def file_digests(
    folder: str | os.PathLike[str], relatives: Iterable[str], *, sha256: FileDigests = sha256_files
) -> dict[str, str]:
    """Return path → sha256 in hex for these files of `folder`, sorted by path: the `files` of a Variant.

    Raises:
        UnsafeWeights: a path leaves the folder, or names a kind of file that is not opened.
        WeightsMissing: a file is not there.
    """
    paths = {}
    for relative in sorted(relatives):
        check_suffix(relative)
        paths[relative] = model_folder.resolve(folder, relative)
    digests = sha256(paths.values())
    return {relative: digests[path] for relative, path in paths.items()}


def check_rivals(folder: str | os.PathLike[str], relatives: Iterable[str]) -> None:
    """Refuse a weight file or shard index, not listed, beside listed weights: a loader may prefer it.

    Raises:
        UnsafeWeights: there is such a rival.
    """
    rivals = model_folder.unlisted(folder, relatives)
    if rivals:
        raise UnsafeWeights(
            f"{rivals[0]} in {folder} is not listed by the policy, and could be loaded instead of what is",
            remedy="move it out of that folder, or bind the policy to the model as it is",
        )


def check_files(
    folder: str | os.PathLike[str], variant: Variant, *, sha256: FileDigests = sha256_files
) -> None:
    """Check that `folder` holds every file of `variant` with the content that it lists, and no rival.

    Raises:
        WeightsMissing: a file is not there.
        WeightsMismatch: a file's content is another one.
        UnsafeWeights: a link leads out of the folder, a path is not plain, a kind of file is not opened, there
            is a rival, or a listed safetensors file is malformed.
    """
    for relative in variant.files:
        check_suffix(relative)
    paths = {relative: model_folder.resolve(folder, relative) for relative in sorted(variant.files)}
    check_rivals(folder, paths)
    digests = sha256(paths.values())
    for relative, path in paths.items():
        actual = digests[path]
        if actual != variant.files[relative]:
            raise _other_file(f"{relative} in {folder}", path, actual, variant.files[relative], variant.name)
    for relative, path in paths.items():
        # A matching digest does not make a file well formed: refuse a malformed one here, before a loader fails on it.
        if relative.endswith(".safetensors"):
            _header(path)


def find_variant(
    folder: str | os.PathLike[str], variants: Sequence[Variant], *, sha256: FileDigests = sha256_files
) -> Variant:
    """Return the first of `variants` whose files `folder` holds, as `check_files` checks it.

    Raises:
        WeightsMissing, WeightsMismatch, UnsafeWeights: none matches; the first variant's reason, or the first
            one that says more than that files are missing.
        UnsupportedModel: there are none: a network that is bound to tensor roots alone.
    """
    if not variants:
        raise UnsupportedModel(
            "the policy lists no files that a folder could be compared with",
            remedy="it is bound to its network by tensor root alone; name no folder",
        )
    reasons: list[WeightsMissing | WeightsMismatch | UnsafeWeights] = []
    for variant in variants:
        try:
            check_files(folder, variant, sha256=sha256)
        except (WeightsMissing, WeightsMismatch, UnsafeWeights) as error:
            reasons.append(error)
        else:
            return variant
    raise next((reason for reason in reasons if not isinstance(reason, WeightsMissing)), reasons[0])


def tensor_root(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return "sha256:<hex>" of the values in these safetensors files together, whatever file holds which.

    Raises:
        WeightsMissing, UnsafeWeights: a file is missing or malformed, or a tensor is in two files.
    """
    return root_of_scans(scan_files(Path(path) for path in paths))


def root_of_scans(scans: Mapping[Path, Scan]) -> str:
    """Return the tensor root of files that were scanned. Raises UnsafeWeights if a tensor is in two of them."""
    records = (
        (path, entry, value_record(entry.dtype, entry.shape, content))
        for path, scan in scans.items()
        for entry, content in scan.tensors.items()
    )
    return root_of(TENSORS, _by_name(records))


def architecture_digest(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return "sha256:<hex>" of the names and shapes in these safetensors files together.

    Raises:
        WeightsMissing, UnsafeWeights: as for `tensor_root`.
    """
    return root_of(
        ARCHITECTURE,
        _by_name((path, entry, shape_record(entry.shape)) for path in paths for entry in _header(path)),
    )


def root_of(tag: bytes, records: Mapping[bytes, bytes]) -> str:
    """Return "sha256:<hex>" over a tag and the records of tensors, sorted by name, all with length prefixes."""
    digest = hashlib.sha256(_prefixed(tag))
    for name in sorted(records):
        digest.update(_prefixed(name) + records[name])
    return "sha256:" + digest.hexdigest()


def shape_record(shape: Sequence[int]) -> bytes:
    """Return the record of a tensor in the architecture digest."""
    return b"".join(_number(n) for n in (len(shape), *shape))


def value_record(dtype: str, shape: Sequence[int], content: bytes) -> bytes:
    """Return the record of a tensor in the tensor root; `dtype` as safetensors names it, `content` its sha256."""
    return _prefixed(dtype.encode()) + shape_record(shape) + _prefixed(content)


def _other_file(name: str, path: Path, actual: str, expected: str, variant: str) -> WeightsMismatch:
    if (diagnosis := diagnose(path, expected)) is not None:
        return WeightsMismatch(f"{name} {diagnosis.what}", remedy=diagnosis.remedy)
    return WeightsMismatch(
        f"{name} has sha256 {actual[:12]}…, the policy's variant {variant} expects {expected[:12]}…"
    )


def _header(path: str | os.PathLike[str]) -> list[TensorEntry]:
    with open_weights(path) as file:
        return read_header(file, path)


def _by_name(
    records: Iterable[tuple[str | os.PathLike[str], TensorEntry, bytes]],
) -> dict[bytes, bytes]:
    by_name: dict[bytes, bytes] = {}
    for path, entry, record in records:
        name = entry.name.encode()
        if name in by_name:
            raise UnsafeWeights(f"tensor {entry.name!r} of {path} is in another file too")
        by_name[name] = record
    return by_name


def _prefixed(data: bytes) -> bytes:
    return _number(len(data)) + data


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")
