"""DigestCache: not hashing the same 28 GB at every start.

A digest is kept under the device, inode, size and the times, in nanoseconds, of the content (mtime) and
of any change (ctime, which no user program can set back). A file that changed within the last seconds is
hashed every time, as a further change may fall within the same tick of the clock. Whoever can write
the cache file can make a wrong model pass, so it belongs to the user who runs, like the trust file.
"""

import json
import os
import time
from pathlib import Path

from budc.schema import canonical
from budc.schema.digests import sha256_file
from budc.schema.errors import BudcError, WeightsMissing
from budc.schema.files import read_limited, write_atomic

_SETTLE_NS = 3_000_000_000
_LIMIT = 1 << 24
_MAX_ENTRIES = 20_000


class DigestCache:
    """A `FileDigest` that remembers: `check_files(folder, variant, sha256=cache)`.

    Without a path it remembers for the life of the object; with one, `save` keeps it for the next process.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._digests = {} if self._path is None else _load(self._path)

    def __call__(self, path: Path) -> str:
        """Return the sha256 of the file at `path` in hex. Raises WeightsMissing if it cannot be read."""
        key = _key(path)
        known = self._digests.get(key)
        if known is not None:
            return known
        digest = sha256_file(path)
        if _key(path) == key and _settled(path):
            self._digests[key] = digest
        return digest

    def save(self) -> None:
        """Write the cache to its path, if it has one. Raises OutputError."""
        if self._path is not None:
            newest = dict(list(self._digests.items())[-_MAX_ENTRIES:])
            write_atomic(self._path, json.dumps(newest, indent=0).encode(), mode=0o600)


def _key(path: Path) -> str:
    status = _stat(path)
    fields = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, fields))


def _settled(path: Path) -> bool:
    status = _stat(path)
    return max(status.st_mtime_ns, status.st_ctime_ns) + _SETTLE_NS < time.time_ns()


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise WeightsMissing(f"cannot read {path}: {error.strerror}") from error


def _load(path: Path) -> dict[str, str]:
    """Return what is remembered; a cache that is missing or damaged is an empty one."""
    try:
        content = canonical.parse(read_limited(path, _LIMIT), limit=_LIMIT, what="digest cache")
    except BudcError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str) and len(value) == 64}
