import hashlib
import json
import os
from pathlib import Path

import pytest

from budc.schema import digest_cache
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import WeightsMissing


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

    def count(path: Path) -> str:
        seen.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(digest_cache, "sha256_file", count)
    return seen


def test_a_file_is_hashed_once(weights: Path, hashed: list[Path]) -> None:
    cache = DigestCache()
    assert cache(weights) == cache(weights) == hashlib.sha256(b"content").hexdigest()
    assert hashed == [weights]


def test_a_saved_cache_serves_the_next_process(weights: Path, hashed: list[Path], tmp_path: Path) -> None:
    first = DigestCache(tmp_path / "cache.json")
    digest = first(weights)
    first.save()
    assert DigestCache(tmp_path / "cache.json")(weights) == digest
    assert len(hashed) == 1
    assert (tmp_path / "cache.json").stat().st_mode & 0o077 == 0


def test_other_content_is_hashed_again_even_if_its_time_is_set_back(
    weights: Path, hashed: list[Path]
) -> None:
    cache = DigestCache()
    cache(weights)
    before = weights.stat()
    while weights.stat().st_ctime_ns == before.st_ctime_ns:  # until the file system's clock has ticked
        weights.write_bytes(b"CONTENT")
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    assert cache(weights) == hashlib.sha256(b"CONTENT").hexdigest()


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, hashed: list[Path]) -> None:
    path = tmp_path / "new"
    path.write_bytes(b"content")
    cache = DigestCache()
    cache(path)
    cache(path)
    assert hashed == [path, path]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', '{"a": "short"}', '{"a":"b","a":"c"}'])
def test_a_damaged_cache_is_an_empty_one(
    weights: Path, hashed: list[Path], tmp_path: Path, content: str
) -> None:
    (tmp_path / "cache.json").write_text(content)
    DigestCache(tmp_path / "cache.json")(weights)
    assert hashed == [weights]


def test_the_saved_cache_is_bounded(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_cache, "_MAX_ENTRIES", 2)
    cache = DigestCache(tmp_path / "cache.json")
    for index in range(4):
        path = tmp_path / str(index)
        path.write_bytes(bytes([index]))
        cache(path)
    cache.save()
    assert set(json.loads((tmp_path / "cache.json").read_text()).values()) == {
        hashlib.sha256(bytes([index])).hexdigest() for index in (2, 3)
    }


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        DigestCache()(tmp_path / "gone")
