"""A folder that appears whole or not at all.

It is built as a hidden sibling, `.NAME.partial`, which is renamed when it is finished. A killed process leaves that
sibling behind, and the next attempt removes it. A lock tells whether another process is still writing it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budc.schema.errors import OutputError
from budc.schema.files import sync_folder


def check_new_folder(folder: Path) -> None:
    """Refuse a path where no folder can be made: one that exists, or has no parent. Raises OutputError."""
    if os.path.lexists(folder):
        raise OutputError(f"{folder} exists already", remedy="give another --out, or remove it")
    if not folder.absolute().parent.is_dir():
        raise OutputError(f"{folder.parent} is not a folder", remedy="create it first, or give another --out")


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which becomes `folder` when the with-block ends, or is removed when it raises.

    Raises:
        OutputError: `folder` exists, its parent cannot be written, or another process is making it.
    """
    check_new_folder(folder)
    partial = folder.absolute().parent / f".{folder.name}.partial"
    with _locked(partial):
        try:
            yield partial
            _sync(partial)
            check_new_folder(folder)
            os.rename(partial, folder)
            sync_folder(folder.absolute().parent)
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
        finally:
            # It still exists only if something failed.
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    descriptor = _lock(partial)
    try:
        for stale in partial.iterdir():
            if stale.is_dir() and not stale.is_symlink():
                shutil.rmtree(stale)
            else:
                stale.unlink()
        yield
    finally:
        os.close(descriptor)


def _lock(partial: Path) -> int:
    while True:
        try:
            with contextlib.suppress(FileExistsError):
                partial.mkdir()
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(f"cannot write {partial}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(partial).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise OutputError(
                f"{partial}: another process is writing it", remedy="wait for it, or give another --out"
            ) from error
        except FileNotFoundError:
            pass
        # Another process renamed or removed the folder between `mkdir` and `flock`: try again.
        os.close(descriptor)


def _sync(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(Path(parent, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))
