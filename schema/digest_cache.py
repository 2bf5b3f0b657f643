"""DigestCache: remembers the digests of files, so that 28 GB of weights are not hashed at every start.

A digest is stored under the file's device, inode, size, and the times in nanoseconds of its last change of content
(mtime) and of any change (ctime, which no user program can set back). A file that changed within the last seconds
is always hashed, as another change may fall within the same tick of the clock. Whoever can write the cache file can
make a wrong model pass, so it belongs to the user, like the trust file: a cache that belongs to another user, or that
others may write, is not read.

What this cannot see is a change that moves no time: pages written through a shared memory mapping get their times only
when the kernel writes them back. Where others can write to the weights, hash them every time (`rehash`, `--rehash`).
"""

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from budc.schema import canonical
from budc.schema.digests import root_of_scans
from budc.schema.errors import BudcError, WeightsMissing
from budc.schema.files import lock, read_limited, write_atomic
from budc.schema.hashing import Watch, scan_files, sha256_files, unwatched

_SETTLE_NS = 3_000_000_000
_LIMIT = 1 << 24
_MAX_ENTRIES = 20_000
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


def cache_folder() -> Path:
    """Return budc's folder in the user's cache: $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "budc"


class DigestCache:
    """A `FileDigests` that remembers: `check_files(folder, variant, sha256=cache)`.

    Args:
        path: file that keeps digests for later processes; without one they last as long as the object.
        watch: shows the reading of files whose digests are not remembered.
        rehash: ignore what earlier processes remembered; what is hashed now is remembered.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        watch: Watch = unwatched,
        rehash: bool = False,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._watch = watch
        self._digests = {} if self._path is None or rehash else _load(self._path)
        self._new: dict[str, str] = {}

    @classmethod
    def of_user(cls, *, watch: Watch = unwatched, rehash: bool = False) -> "DigestCache":
        """Return the cache of the user who runs this process."""
        return cls(cache_folder() / "digests.json", watch=watch, rehash=rehash)

    def __call__(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return path -> sha256 in hex. Files that are not remembered are read in parallel, and then remembered.

        Raises:
            WeightsMissing: a file cannot be read.
        """
        keys = {path: file_state(path) for path in paths}
        missing = [path for path, key in keys.items() if key not in self._digests]
        settled = _settled(missing)
        read = sha256_files(missing, watch=self._watch)
        self._learn(keys, read, settled)
        return {path: read[path] if path in read else self._digests[key] for path, key in keys.items()}

    def with_root(self, paths: Iterable[Path]) -> tuple[dict[Path, str], str]:
        """Return path -> sha256 and the tensor root of these safetensors files together, from one read of each.

        Raises:
            WeightsMissing, UnsafeWeights: see `budc.schema.hashing.scan_files` and `root_of_scans`.
        """
        keys = {path: file_state(path) for path in paths}
        if all(key in self._digests for key in keys.values()):
            digests = {path: self._digests[key] for path, key in keys.items()}
            root = self._digests.get(_root_key(digests))
            if root is not None:
                return digests, root
        settled = _settled(keys)
        scans = scan_files(keys, watch=self._watch)
        digests, root = {path: scan.sha256 for path, scan in scans.items()}, root_of_scans(scans)
        # The root follows from the digests alone, so it never becomes stale.
        self._new[_root_key(digests)] = self._digests[_root_key(digests)] = root
        self._learn(keys, digests, settled)
        return digests, root

    def save(self) -> None:
        """Add new digests to the cache's file, if it has one; several processes may do so at once.

        A file that cannot be written is not an error.
        """
        if self._path is None or not self._new:
            return
        with contextlib.suppress(OSError, BudcError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(self._path.with_suffix(".lock")):
                merged = _load(self._path) | self._new
                newest = dict(list(merged.items())[-_MAX_ENTRIES:])
                write_atomic(self._path, json.dumps(newest, indent=0).encode(), mode=0o600)
                self._new.clear()

    def _learn(self, keys: dict[Path, str], digests: dict[Path, str], settled: set[Path]) -> None:
        """Remember files that had not changed for a while before they were read, and did not change since."""
        for path, digest in digests.items():
            if path in settled and file_state(path) == keys[path]:
                self._digests[keys[path]] = self._new[keys[path]] = digest
        self.save()


def _root_key(digests: dict[Path, str]) -> str:
    return "root:" + hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()


def file_state(path: Path) -> str:
    """Return identity, size and times of a file as one text; it changes when the file is written to or replaced.

    Raises:
        WeightsMissing: there is no such file.
    """
    status = _stat(path)
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, fields))


def _settled(paths: Iterable[Path]) -> set[Path]:
    """Return those that have not changed for a while. Ask before reading: a change during it may not show."""
    now = time.time_ns()
    stats = {path: _stat(path) for path in paths}
    return {
        path
        for path, status in stats.items()
        if max(status.st_mtime_ns, status.st_ctime_ns) + _SETTLE_NS < now
    }


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise WeightsMissing(f"cannot read {path}: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time read, add and write. Raises OSError if another one keeps the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _load(path: Path) -> dict[str, str]:
    """Return what is remembered; a cache that is missing, damaged or open to others is an empty one."""
    try:
        status = path.stat()
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            return {}
        content = canonical.parse(read_limited(path, _LIMIT), limit=_LIMIT, what="digest cache")
    except (OSError, BudcError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        key: value for key, value in content.items() if isinstance(value, str) and _DIGEST.fullmatch(value)
    }
