"""Reading a bounded file and writing one whole or not at all."""

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from budc.schema.errors import ArtifactError, ArtifactTooLarge, OutputError


def read_limited(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the content of the regular file at `path`, reading at most `limit` + 1 bytes of it.

    Raises:
        ArtifactTooLarge: it holds more than `limit` bytes.
        ArtifactError: it is missing, unreadable or not a regular file.
    """
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer that never comes.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ArtifactError(f"{path} is not a regular file", remedy="give the path of a file")
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ArtifactError(f"cannot read {path}: {reason}", remedy="check the path") from error
    if len(data) > limit:
        raise ArtifactTooLarge(f"{path} is over {limit} bytes")
    return data


def check_place(path: str | os.PathLike[str]) -> None:
    """Refuse a path that cannot be written; called before long work, so that its result is not lost.

    Raises:
        OutputError: a folder, or in a folder that is missing or not writable.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"--out: {target} is a folder", remedy="give a file")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise OutputError(f"--out: cannot write in {target.parent}: {error.strerror}") from error


def write_atomic(path: str | os.PathLike[str], data: bytes, *, mode: int = 0o666) -> None:
    """Write `data` to `path` so that readers, even after a crash, see the old file or the new one.

    A temporary file in the same folder is written, synced and renamed over `path`, then the folder is synced.

    Args:
        path: where to write; an existing file or link of that name is replaced, its target left alone.
        data: the whole content.
        mode: permissions of a new file before the umask; 0o600 for private keys.

    Raises:
        OutputError: the folder does not exist or cannot be written; nothing is left behind.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
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
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(f"cannot write {target}: {reason}") from error


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
