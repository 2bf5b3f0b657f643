"""Reading a bounded file and writing one whole or not at all."""

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
import time
from io import BufferedReader
from pathlib import Path

from budc.schema.errors import ArtifactError, ArtifactTooLarge, OutputError

_SUFFIX = ".tmp"
LOCK_SECONDS = 10.0
"""How long to wait for another process; what it does under a lock takes milliseconds."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader | None:
    """Return the file at `path` opened for reading; None for a folder, pipe or device, which are not waited for.

    Raises:
        OSError, ValueError: it cannot be opened.
    """
    # O_NONBLOCK: opening a named pipe would otherwise wait for a writer that never comes.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def read_limited(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of the regular file at `path`, reading at most `limit` + 1 bytes of it.

    Raises:
        ArtifactTooLarge: it holds more than `limit` bytes.
        ArtifactError: it is missing, unreadable or not a regular file.
    """
    try:
        file = open_regular(path)
        if file is None:
            raise ArtifactError(f"{path} is not a regular file", remedy="give the path of a file")
        with file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {path}: {_reason(error)}", remedy="check the path") from error
    if len(data) > limit:
        raise ArtifactTooLarge(f"{path} is over {limit} bytes")
    return data


def check_place(path: str | os.PathLike[str], option: str = "--out") -> None:
    """Refuse a path that cannot be written; called before long work, so that its result is not lost.

    Args:
        path: where something will be written.
        option: the flag that it comes from.

    Raises:
        OutputError: empty, no regular file, too long a name, or in a folder that is missing or not writable.
    """
    target = Path(path)
    try:
        _refuse_special(target)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OutputError as error:
        raise OutputError(f"{option}: {error}", remedy=error.remedy) from error
    except (OSError, ValueError) as error:
        raise OutputError(f"{option}: cannot write in {target.parent}: {_reason(error)}") from error


def write_atomic(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o666) -> None:
    """Write `data` to `path` so that readers, even after a crash, see the old file or the new one.

    A temporary file in the same folder is written, synced and renamed over `path`, then the folder is synced. What a
    writer of `path` left behind when it was killed is removed.

    Args:
        path: where to write; an existing regular file, or a link to one, is replaced. The target of a link stays.
        data: the whole content.
        mode: permissions of a new file before the umask; 0o600 for private keys.

    Raises:
        OutputError: what is there is no regular file, or the folder does not exist or cannot be written; nothing is
            left behind.
    """
    target = Path(path)
    try:
        _refuse_special(target)
        _remove_abandoned(target)
        descriptor, temporary = _temporary(target, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {target}: {_reason(error)}") from error


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and those above it, where they are not there. Raises OutputError."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {_reason(error)}") from error


def new_file(folder: str | os.PathLike[str], stem: str, suffix: str) -> Path:
    """Make an empty file and return it: STEM SUFFIX, or where that is taken STEM-2, STEM-3, …

    Two processes never get the same one. Raises OutputError: the folder cannot be written.
    """
    number = 1
    while True:
        path = Path(folder) / (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}")
        try:
            path.open("x").close()
        except FileExistsError:
            number += 1
        except OSError as error:
            raise OutputError(f"cannot write {path}: {_reason(error)}") from error
        else:
            return path


def _reason(error: OSError | ValueError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _refuse_special(target: Path) -> None:
    """Refuse to replace a folder, a device, a pipe or a socket, also through a link. Raises OSError, OutputError."""
    if not target.name:
        raise OutputError(f"{str(target)!r} is no file name", remedy="give the path of a file")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OutputError(f"{target} is a folder", remedy="give the path of a file")
    if not stat.S_ISREG(mode):
        raise OutputError(
            f"{target} is not a regular file", remedy="give another path; only files are replaced"
        )


def _temporary(target: Path, mode: int) -> tuple[int, Path]:
    """Return a new locked file beside `target`, its descriptor and its path; the lock says that its writer lives."""
    while True:
        path = target.with_name(f"{_prefix(target)}{secrets.token_hex(8)}{_SUFFIX}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, path
        # Another writer took it for abandoned before it was locked.
        os.close(descriptor)


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files of `target` that nobody holds the lock of: their writers were killed."""
    prefix = _prefix(target)
    with os.scandir(target.parent) as entries:
        names = [e.name for e in entries if e.name.startswith(prefix) and e.name.endswith(_SUFFIX)]
    for name in names:
        path = target.with_name(name)
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def _prefix(target: Path) -> str:
    """Return what the names of `target`'s temporary files begin with; short enough that they are names, too."""
    return f".{os.fsencode(target.name)[:200].decode('utf-8', 'ignore')}."


def lock(descriptor: int, *, seconds: float = LOCK_SECONDS) -> None:
    """Lock an open file for this process, waiting `seconds` at most. Raises OSError: another process holds it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.01)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in `folder` survive a power cut, where the file system can say so.

    Raises:
        OSError: `folder` cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Some network file systems refuse to sync a folder; the file itself is synced all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
