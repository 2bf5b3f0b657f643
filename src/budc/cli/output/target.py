"""Where `budc run` may write: a file of a known suffix in a folder that can be written. Imports no image library."""

from __future__ import annotations

from pathlib import Path

from budc.schema.errors import UsageError
from budc.schema.files import check_place

SUFFIXES = (".mp4", ".gif", ".webp", ".png", ".jpg", ".jpeg")


def check_target(path: Path) -> None:
    """Refuse a path that cannot be written, before anything is loaded.

    Raises:
        UsageError: a suffix other than those of `SUFFIXES`.
        OutputError: a folder, or in a folder that is missing or not writable.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--out: {path} has the suffix {path.suffix or '(none)'!r}",
            remedy=f"end it in one of {', '.join(SUFFIXES)}",
        )
    check_place(path)
