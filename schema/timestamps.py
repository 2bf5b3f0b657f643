"""Timestamps of artifacts: RFC 3339, UTC, whole seconds, "2026-07-01T12:00:00Z"."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from budc.schema.errors import SemanticsViolation, UsageError

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def format_time(moment: datetime) -> str:
    """Return `moment` (with a time zone) in UTC, cut to the second."""
    text = moment.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat()
    return f"{text}Z"


def parse_time(text: str, *, field: str) -> datetime:
    """Return the moment that `text` names, with UTC as its zone.

    Raises:
        SemanticsViolation: not of the form above, or not a date of the calendar; the message names `field`.
    """
    try:
        moment = datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise SemanticsViolation(f"{field} is {text!r}, not a moment like 2026-07-01T12:00:00Z") from None
    if format_time(moment) != text:
        raise SemanticsViolation(f"{field} is {text!r}, not a moment like 2026-07-01T12:00:00Z")
    return moment


def issue_time(environ: Mapping[str, str] | None = None) -> str:
    """Return the time for `issuedAt`: SOURCE_DATE_EPOCH of `environ` (default: os.environ) if set, else now.

    Raises:
        UsageError: SOURCE_DATE_EPOCH is not a whole number of seconds that a date can hold.
    """
    epoch = (os.environ if environ is None else environ).get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return format_time(datetime.now(UTC))
    try:
        # Digits alone: int() also reads signs, spaces and underscores.
        if not re.fullmatch(r"[0-9]{1,12}", epoch):
            raise ValueError
        return format_time(datetime.fromtimestamp(int(epoch), UTC))
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {epoch!r}, not a number of seconds",
            remedy="unset it, or set it to seconds since 1970 such as $(git log -1 --format=%ct)",
        ) from None
