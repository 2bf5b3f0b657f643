import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from budc.schema import hashing
from budc.schema.errors import UnsafeWeights, WeightsMissing
from budc.schema.hashing import scan_files, sha256_file, sha256_files


def safetensors(path: Path, sizes: dict[str, int]) -> dict[str, bytes]:
    """Write tensors of these many bytes and return their contents."""
    header, data, contents = {}, b"", {}
    for index, (name, size) in enumerate(sizes.items()):
        contents[name] = bytes((index * 31 + k) % 251 for k in range(size))
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [len(data), len(data) + size]}
        data += contents[name]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return contents


@pytest.mark.parametrize("workers", [None, 1, 4])
def test_many_files_are_what_each_is(tmp_path: Path, workers: int | None) -> None:
    paths = [tmp_path / str(index) for index in range(7)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * index * 700_000)
    digests = sha256_files(paths, workers=workers)
    assert list(digests) == paths
    assert digests == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert all(sha256_file(path) == digests[path] for path in paths)
    assert sha256_files([]) == {}


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_a_scan_gives_file_and_tensors_whatever_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(hashing, "CHUNK", chunk)
    path = tmp_path / "w.safetensors"
    contents = safetensors(path, {"a": 5, "none": 0, "b": 300, "c": 1, "last": 0})
    (scan,) = scan_files([path]).values()
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    digests = {entry.name: digest for entry, digest in scan.tensors.items()}
    assert digests == {name: hashlib.sha256(data).digest() for name, data in contents.items()}


def test_the_watch_sees_every_byte_once_even_from_several_threads(tmp_path: Path) -> None:
    paths = [tmp_path / str(index) for index in range(5)]
    for path in paths:
        path.write_bytes(b"x" * 3_000_000)
    seen: list[int] = []

    @contextmanager
    def watch(total: int) -> Iterator[Callable[[int], None]]:
        assert total == 15_000_000
        yield seen.append
        seen.append(-1)

    sha256_files(paths, watch=watch, workers=4)
    assert seen[-1] == -1
    assert sum(seen[:-1]) == 15_000_000


def test_what_cannot_be_read_or_is_malformed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not safetensors at all")
    with pytest.raises(UnsafeWeights):
        scan_files([tmp_path / "x"])
    for read in (sha256_files, scan_files):
        with pytest.raises(WeightsMissing, match="gone"):
            read([tmp_path / "gone"])
    with pytest.raises(UnsafeWeights):
        sha256_file(tmp_path)
