"""Rendering: tables, mask strips and numbers as text, with bold headers only where stdout is a terminal.

Everything is rendered to a string at its natural width, so that only the terminal ever wraps it. Text from a file
passes `printable` on the way. rich is imported with the first table.
"""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from budc.schema.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from budc.schema.mask import StepMask

_WIDTH = 20_000
_TEXT_WIDTH = 100
MISSING = "–"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, text: Collection[str] = ()) -> str:
    """Return a table as text; columns of text (the first, and those named by `text`) are aligned to the left.

    A cell is one line without markup and control characters, wherever its text comes from.
    """
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        view.add_column(
            Text(printable(header)), justify="left" if index == 0 or header in text else "right", no_wrap=True
        )
    for row in rows:
        view.add_row(*(Text(printable(value)) for value in row))
    return _text(view)


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """Return name and value pairs, a line each, with aligned values; further lines of a value stand under its first.

    Values are shown as they are: pass text from a file through `printable` first.
    """
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs)
    lines = []
    for name, value in pairs:
        first, *others = value.split("\n")
        lines.append(f"{name:<{width}}  {first}".rstrip())
        lines += [f"{'':<{width}}  {other}".rstrip() for other in others]
    return "\n".join(lines)


def strip(mask: StepMask) -> str:
    """Return the mask as a strip of one character a step, over a ruler that numbers the steps.

    Where stdout has no block characters, # is computed and . is reused.
    """
    marks = mask.strip()
    try:
        marks.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        marks = marks.replace("█", "#").replace("·", ".")
    return f"{marks}\n{ruler(mask.steps)}"


def ruler(steps: int) -> str:
    """Return a line on which each number starts under the step that it names."""
    interval = 5 if steps <= 30 else 10
    marks = "".join(f"{step:<{interval}}" for step in range(0, steps, interval))
    return marks.rstrip()


def wrapped(words: Iterable[str], *, gap: str = " ") -> str:
    """Return words on lines of at most 100 characters; a word is never broken."""
    # The wrapper breaks at any space: those within a word or a gap become NULs, and come back afterwards.
    glued = " ".join(word.replace(" ", "\0") + "\0" * (len(gap) - 1) for word in words)
    lines = textwrap.wrap(glued, _TEXT_WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(line.replace("\0", " ").rstrip() for line in lines)


def number(value: float | None) -> str:
    """Return a number to three digits, or a dash where there is none."""
    return MISSING if value is None else f"{value:.3g}"


def _text(view: Table) -> str:
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=_WIDTH,
        color_system="auto" if sys.stdout.isatty() else None,
        force_terminal=sys.stdout.isatty(),
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    with console.capture() as capture:
        console.print(view)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
