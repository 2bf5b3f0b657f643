"""Reading large files once, several at a time: sha256 of each and, where it is asked for, of their tensors.

hashlib releases the interpreter's lock, so threads keep as many cores busy as there are files. A caller that
shows progress passes a `Watch`; nothing is printed here.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple, TypeVar

from budc.schema.errors import UnsafeWeights, WeightsMissing
from budc.schema.tensors import TensorEntry, open_weights, read_header

CHUNK = 1 << 20
"""Bytes read at a time, and between two reports of progress."""

Advance = Callable[[int], None]
"""Called with the number of bytes read since the last call; calls never overlap."""
Watch = Callable[[int], AbstractContextManager[Advance]]
"""Called with the total number of bytes; returns a context manager around the reading that gives an `Advance`."""
_Result = TypeVar("_Result")


class Scan(NamedTuple):
    """Digests from one read of a safetensors file: sha256 of the file and of each tensor's bytes."""

    sha256: str
    tensors: Mapping[TensorEntry, bytes]


@contextmanager
def unwatched(_total: int) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _count: None


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of the file at `path` as 64 hex digits. Raises WeightsMissing if unreadable."""
    return _sha256(Path(path), lambda _count: None)


def sha256_files(
    paths: Iterable[Path], *, watch: Watch = unwatched, workers: int | None = None
) -> dict[Path, str]:
    """Return path -> sha256 in hex, `workers` files at a time (default one a core this process may use).

    Raises:
        WeightsMissing: a file cannot be read.
    """
    return _read_all(paths, _sha256, watch, workers)


def scan_files(
    paths: Iterable[Path], *, watch: Watch = unwatched, workers: int | None = None
) -> dict[Path, Scan]:
    """Return path -> `Scan` of these safetensors files, each read once.

    Raises:
        WeightsMissing: a file cannot be read.
        UnsafeWeights: a file is malformed, or was cut while it was read.
    """
    return _read_all(paths, _scan, watch, workers)


def _read_all(
    paths: Iterable[Path], read: Callable[[Path, Advance], _Result], watch: Watch, workers: int | None
) -> dict[Path, _Result]:
    sizes = {path: _size(path) for path in paths}
    if not sizes:
        return {}
    # Largest first, so that no large file is begun when all others are done.
    ordered = sorted(sizes, key=lambda path: -sizes[path])
    lock = Lock()
    with watch(sum(sizes.values())) as advance:

        def counted(count: int) -> None:
            with lock:
                advance(count)

        with ThreadPoolExecutor(workers or min(len(ordered), len(os.sched_getaffinity(0)))) as pool:
            try:
                results = list(pool.map(lambda path: read(path, counted), ordered))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    by_path = dict(zip(ordered, results, strict=True))
    return {path: by_path[path] for path in sizes}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _sha256(path: Path, advance: Advance) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path, advance):
        digest.update(chunk)
    return digest.hexdigest()


def _scan(path: Path, advance: Advance) -> Scan:
    with open_weights(path) as file:
        entries = read_header(file, path)
    whole, tensors = hashlib.sha256(), {entry: hashlib.sha256() for entry in entries}
    position, at = 0, 0
    for chunk in _chunks(path, advance):
        whole.update(chunk)
        end = position + len(chunk)
        while at < len(entries) and entries[at].start < end:
            entry = entries[at]
            tensors[entry].update(chunk[max(0, entry.start - position) : entry.end - position])
            if entry.end > end:
                break
            at += 1
        position = end
    if entries and entries[-1].end != position:
        raise UnsafeWeights(f"{path} changed its length while it was read")
    return Scan(whole.hexdigest(), {entry: digest.digest() for entry, digest in tensors.items()})


def _chunks(path: Path, advance: Advance) -> Iterator[memoryview]:
    """Yield the file's bytes in one buffer that is used again and again."""
    buffer = memoryview(bytearray(CHUNK))
    with open_weights(path) as file:
        try:
            while count := file.readinto(buffer):
                yield buffer[:count]
                advance(count)
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> WeightsMissing:
    return WeightsMissing(f"cannot read {path}: {error.strerror}")
