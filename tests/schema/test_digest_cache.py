import fcntl
import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from budc.schema import digest_cache
from budc.schema.digest_cache import DigestCache, cache_folder
from budc.schema.digests import tensor_root
from budc.schema.errors import WeightsMissing
from budc.schema.hashing import Scan


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as old enough to be remembered."""
    monkeypatch.setattr(digest_cache, "_SETTLE_NS", -3_600_000_000_000)
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really read, in order."""
    seen: list[Path] = []
    read, scan = digest_cache.sha256_files, digest_cache.scan_files

    def count(paths: Iterable[Path], **options: Any) -> dict[Path, str]:
        paths = list(paths)
        seen.extend(paths)
        return read(paths, **options)

    def count_scans(paths: Iterable[Path], **options: Any) -> dict[Path, Scan]:
        paths = list(paths)
        seen.extend(paths)
        return scan(paths, **options)

    monkeypatch.setattr(digest_cache, "sha256_files", count)
    monkeypatch.setattr(digest_cache, "scan_files", count_scans)
    return seen


def digest_of(cache: DigestCache, path: Path) -> str:
    return cache([path])[path]


def test_a_file_is_hashed_once(weights: Path, hashed: list[Path]) -> None:
    cache = DigestCache()
    assert digest_of(cache, weights) == digest_of(cache, weights) == hashlib.sha256(b"content").hexdigest()
    assert hashed == [weights]


def test_the_next_process_is_served(weights: Path, hashed: list[Path], tmp_path: Path) -> None:
    digest = digest_of(DigestCache(tmp_path / "new" / "cache.json"), weights)
    assert digest_of(DigestCache(tmp_path / "new" / "cache.json"), weights) == digest
    assert len(hashed) == 1
    assert (tmp_path / "new" / "cache.json").stat().st_mode & 0o077 == 0


def test_rehash_believes_no_earlier_process(weights: Path, hashed: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    digest_of(DigestCache(path), weights)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict.fromkeys(content, "0" * 64)))
    assert digest_of(DigestCache(path), weights) == "0" * 64
    assert digest_of(DigestCache(path, rehash=True), weights) == hashlib.sha256(b"content").hexdigest()
    assert digest_of(DigestCache(path), weights) == hashlib.sha256(b"content").hexdigest()
    assert len(hashed) == 2


def test_digests_and_root_come_from_one_read(weights: Path, hashed: list[Path], tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}).encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
    expected = tensor_root([weights])
    cache = DigestCache(tmp_path / "cache.json")
    digests, root = cache.with_root([weights])
    assert (digests, root) == ({weights: hashlib.sha256(weights.read_bytes()).hexdigest()}, expected)
    assert cache([weights]) == digests
    assert DigestCache(tmp_path / "cache.json").with_root([weights]) == (digests, root)
    assert hashed == [weights]


def test_other_content_is_hashed_again_even_if_its_time_is_set_back(
    weights: Path, hashed: list[Path]
) -> None:
    cache = DigestCache()
    digest_of(cache, weights)
    before = weights.stat()
    while weights.stat().st_ctime_ns == before.st_ctime_ns:  # until the file system's clock has ticked
        weights.write_bytes(b"CONTENT")
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    assert digest_of(cache, weights) == hashlib.sha256(b"CONTENT").hexdigest()


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "new"
    path.write_bytes(b"content")
    cache = DigestCache()
    digest_of(cache, path)
    digest_of(cache, path)
    assert hashed == [path, path]


def test_a_file_that_settles_while_it_is_read_is_not_remembered(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new"
    path.write_bytes(b"content")
    monkeypatch.setattr(digest_cache, "_SETTLE_NS", 50_000_000)
    read = digest_cache.sha256_files

    def slowly(paths: Iterable[Path], **options: Any) -> dict[Path, str]:
        time.sleep(0.1)
        return read(paths, **options)

    os.utime(path)
    monkeypatch.setattr(digest_cache, "sha256_files", slowly)
    cache = DigestCache()
    digest_of(cache, path)
    digest_of(cache, path)
    assert hashed[0] == path
    assert len(hashed) == 2


def test_a_clock_that_is_set_back_makes_nothing_stale(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"content")
    clock = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: clock + 3_600_000_000_000)
    digest_of(DigestCache(tmp_path / "cache.json"), path)
    monkeypatch.setattr(time, "time_ns", lambda: clock - 3_600_000_000_000)
    assert digest_of(DigestCache(tmp_path / "cache.json"), path) == hashlib.sha256(b"content").hexdigest()
    assert hashed == [path]
    path.write_bytes(b"CONTENT")  # in what is the future by that clock, so every read counts
    for _ in range(2):
        assert digest_of(DigestCache(tmp_path / "cache.json"), path) == hashlib.sha256(b"CONTENT").hexdigest()
    assert hashed == [path] * 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', '{"a": "short"}', '{"a":"b","a":"c"}'])
def test_a_damaged_cache_is_an_empty_one(
    weights: Path, hashed: list[Path], tmp_path: Path, content: str
) -> None:
    (tmp_path / "cache.json").write_text(content)
    digest_of(DigestCache(tmp_path / "cache.json"), weights)
    assert hashed == [weights]


def test_a_cache_that_others_may_write_is_not_believed(
    weights: Path, hashed: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "cache.json"
    digest_of(DigestCache(path), weights)
    path.chmod(0o666)
    digest_of(DigestCache(path), weights)
    assert len(hashed) == 2


def test_a_cache_that_cannot_be_written_is_none(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = DigestCache(tmp_path / "file" / "cache.json")
    assert digest_of(cache, weights) == hashlib.sha256(b"content").hexdigest()


def test_a_cache_that_another_process_keeps_locked_is_not_waited_for(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_cache, "lock", partial(digest_cache.lock, seconds=0.05))
    with (tmp_path / "cache.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        digest = digest_of(DigestCache(tmp_path / "cache.json"), weights)
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert not (tmp_path / "cache.json").exists()


def test_the_saved_cache_is_bounded(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_cache, "_MAX_ENTRIES", 2)
    cache = DigestCache(tmp_path / "cache.json")
    for index in range(4):
        path = tmp_path / str(index)
        path.write_bytes(bytes([index]))
        digest_of(cache, path)
    assert set(json.loads((tmp_path / "cache.json").read_text()).values()) == {
        hashlib.sha256(bytes([index])).hexdigest() for index in (2, 3)
    }


def _remember(cache: Path, files: list[Path]) -> None:
    digest_cache._SETTLE_NS = -3_600_000_000_000
    for path in files:
        DigestCache(cache)([path])


def test_processes_that_learn_at_once_lose_nothing(tmp_path: Path) -> None:
    files = [tmp_path / str(index) for index in range(40)]
    for path in files:
        path.write_text(path.name)
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_remember, args=(tmp_path / "c" / "d.json", files[k::4])) for k in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    content = json.loads((tmp_path / "c" / "d.json").read_text())
    assert sorted(content.values()) == sorted(hashlib.sha256(p.name.encode()).hexdigest() for p in files)


def test_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "budc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "budc"


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        digest_of(DigestCache(), tmp_path / "gone")
