"""What an error of another library says, in one line."""

from __future__ import annotations

LONGEST = 300
"""Characters of it that are shown."""


def reason_of(error: BaseException) -> str:
    """Return the first line, or the last where it holds a traceback; the error's type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if any(line.startswith("Traceback (") for line in lines) else 0][:LONGEST]
