"""Durations, sizes and counts in the unit that a person would use, with as many digits as mean something."""

from __future__ import annotations

from budc.cli.output.tables import MISSING

_DURATIONS = (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60), ("seconds", 1 / 3600))
_SIZES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def duration(hours: float | None) -> str:
    """Return so many hours in words, with two digits: "1.5 days", "40 minutes"; a dash where there is none."""
    if hours is None:
        return MISSING
    unit, length = next(
        ((unit, length) for unit, length in _DURATIONS if hours >= 1.5 * length), ("seconds", 1 / 3600)
    )
    count = hours / length
    return f"{count:.0f} {unit}" if count >= 9.95 else f"{count:.1f} {unit}"


def size(count: int) -> str:
    """Return so many bytes with two digits or all before the point: "2.8 GB", "335 MB"."""
    unit, length = next(((unit, length) for unit, length in _SIZES if count >= length), ("bytes", 1))
    number = count / length
    return f"{number:.0f} {unit}" if number >= 9.95 or length == 1 else f"{number:.1f} {unit}"


def counted(value: float) -> str:
    """Return a number with three digits, or all those before its point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def between(least: int, most: int) -> str:
    """Return a count, or the bounds of one that is an outcome, with as few digits as tell them apart.

    "9,036", "9,000 to 12,000".
    """
    if least == most:
        return f"{least:,}"
    for digits in range(2, 20):
        low, high = (int(float(f"{value:.{digits}g}")) for value in (least, most))
        if low < high:
            break
    return f"{low:,} to {high:,}"
