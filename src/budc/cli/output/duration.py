"""Durations in the unit that a person would use."""

from __future__ import annotations

_UNITS = (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60), ("seconds", 1 / 3600))


def duration(hours: float) -> str:
    """Return so many hours in words, with two digits: "1.5 days", "40 minutes"."""
    unit, length = next(
        ((unit, length) for unit, length in _UNITS if hours >= 1.5 * length), ("seconds", 1 / 3600)
    )
    count = hours / length
    return f"{count:.0f} {unit}" if count >= 9.95 else f"{count:.1f} {unit}"
