"""The journal: what a compile has measured, on disk before it is used, so that a kill loses one rollout at most.

A folder holds `journal.jsonl` (a header, then one record a line, each with a checksum, appended and synced)
and tensors as safetensors. An incomplete last line, which a kill can leave, is cut off; any other damage is refused.
A value is a number, a text, a Struct, or lists and mappings of these; who reads it says of which type it must be.
The folder's name contains a fingerprint of everything that the measurements depend on, so that no other compile
resumes from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import zlib
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from budc.option_names import worded
from budc.schema.errors import JournalBusy, JournalCorrupt, OutputError

DONE = ".done"
"""Suffix of a journal's folder while it is removed."""

T = TypeVar("T")


def _line(record: Any) -> bytes:
    body = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(body.encode()):08x} {body}\n".encode()


def _record(line: bytes) -> Any:
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        raise ValueError("checksum")
    return json.loads(body)


def _check_owner(folder: Path) -> None:
    """Refuse a folder whose content somebody else could have written: measurements in it would be believed."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise JournalCorrupt(f"{folder}: is no folder, or a link to one")
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise JournalCorrupt(
            f"{folder}: belongs to another user, or others may write in it",
            remedy=f"put {worded('--out', 'work')} into a folder of your own, or move the journal away",
        )


def _open_own(path: str, flags: int) -> int:
    """Open a file of the journal's: regular, and not a link to one that would be cut or appended to."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise JournalCorrupt(f"{path}: is not a regular file of its own")
    return descriptor


class Journal:
    """Key -> value records of one compile. Use as a context manager; only one process may hold it.

    `jobs` says how many jobs share the compile's reference runs, which decides into which chunks these are cut.

    Raises:
        JournalBusy: another process holds it.
        JournalCorrupt: a record before the last one is damaged, the header is another compile's, or others could have
            written it.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str, jobs: int = 1) -> None:
        self.folder = folder
        self.jobs = jobs
        self.records: dict[str, Any] = {}
        self._path = folder / "journal.jsonl"
        self._file = self._lock()
        try:
            self._read(fingerprint)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> FileIO:
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                _check_owner(self.folder)
                # Unbuffered: a write that has failed must not be tried again when the file is closed.
                file = FileIO(self._path, "a+", opener=_open_own)
            except OSError as error:
                raise OutputError(
                    f"{self._path}: cannot write the compile journal: {error.strerror}"
                ) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(self._path).st_ino == os.fstat(file.fileno()).st_ino:
                    return file
            except BlockingIOError as error:
                file.close()
                raise JournalBusy(f"{self._path}: another compile is writing this journal") from error
            except FileNotFoundError:
                pass
            except OSError as error:
                file.close()
                raise OutputError(
                    f"{self._path}: cannot be locked: {error.strerror}",
                    remedy=f"put {worded('--out', 'work')} on a local disk",
                ) from error
            # The compile that held it has just ended and removed it.
            file.close()

    def _read(self, fingerprint: str) -> None:
        self._file.seek(0)
        data = self._file.readall()
        complete, _, incomplete = data.rpartition(b"\n")
        lines = complete.split(b"\n") if complete else []
        if incomplete:
            self._file.truncate(len(data) - len(incomplete))
        for number, line in enumerate(lines, 1):
            try:
                record = _record(line)
                key, value = ("header", record["fingerprint"]) if number == 1 else (record["k"], record["v"])
                hash(key)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise JournalCorrupt(f"{self._path}: line {number} is damaged") from error
            if number == 1 and value != fingerprint:
                raise JournalCorrupt(
                    f"{self._path}: belongs to another compile",
                    remedy=worded(
                        JournalCorrupt.default_remedy,
                        "pass another folder as work=; only the same call on the same network resumes",
                    ),
                )
            if number > 1:
                self.records[key] = value
        if not lines:
            self._append({"fingerprint": fingerprint})

    def _append(self, record: Any) -> None:
        line = _line(record)
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"{self._path}: cannot append: {error.strerror}") from error

    def put(self, key: str, value: object) -> None:
        """Write a record; it is on disk when this returns."""
        value = msgspec.to_builtins(value)
        self._append({"k": key, "v": value})
        self.records[key] = value

    def get(self, key: str, kind: type[T], fits: Callable[[T], bool] | None = None) -> T | None:
        """Return the value of a key as a `kind`; None where there is no such record.

        Args:
            key: names the measurement.
            kind: the type that was written: a number, or a Struct.
            fits: tells whether a value of that type is one that this compile can have written.

        Raises:
            JournalCorrupt: the record is of another type, or does not fit.
        """
        if key not in self.records:
            return None
        try:
            value = msgspec.convert(self.records[key], kind)
        except (ValueError, OverflowError, RecursionError) as error:
            raise JournalCorrupt(f"{self._path}: the record {key!r} is of another type: {error}") from error
        if fits is not None and not fits(value):
            raise JournalCorrupt(f"{self._path}: the record {key!r} does not fit this compile")
        return value

    def discard(self) -> None:
        """Remove the folder, once the compile's artifact is written."""
        # Renamed first: a kill in between must not leave records without their tensors, and a folder that another
        # process makes under the old name must not be removed.
        discarded = self.folder.with_name(f"{self.folder.name}{DONE}")
        shutil.rmtree(discarded, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
