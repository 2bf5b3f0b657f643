"""Rendering: tables, mask strips and numbers as text, with bold headers only where stdout is a terminal.

Everything is rendered to a string at its natural width, so that only the terminal ever wraps it. Text from a file
passes `printable` on the way. rich is imported with the first table.
"""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from budc.schema.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from budc.schema.mask import StepMask

_WIDTH = 20_000
_TEXT_WIDTH = 100
_MARGIN = 14
"""Columns that the name of a field takes, left of its value."""
MISSING = "–"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, text: Collection[str] = ()) -> str:
    """Return a table as text; columns of text (the first, and those named by `text`) are aligned to the left.

    A cell is one line without markup and control characters, wherever its text comes from. On a terminal that is too
    narrow for the table, each row is a list of its cells instead.
    """
    from rich.table import Table
    from rich.text import Text

    view = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        view.add_column(
            Text(printable(header)), justify="left" if index == 0 or header in text else "right", no_wrap=True
        )
    cells = [[printable(value) for value in row] for row in rows]
    for row in cells:
        view.add_row(*(Text(value) for value in row))
    measured = view.__rich_measure__(_console(), _console().options)
    return _text(view) if measured.minimum <= _columns() else _lists(headers, cells)


def _lists(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a list for each row: its first cell, then the others under it with their headers."""
    return "\n".join(
        f"{row[0]}\n{textwrap.indent(fields(zip(headers[1:], row[1:], strict=True)), '  ')}" for row in rows
    )


def _columns() -> int:
    """Return how wide a line may be: as the terminal, or without bound where stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH


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
    """Return words on lines of at most 100 characters, fewer on a narrow terminal; a word is never broken."""
    # The wrapper breaks at any space: those within a word or a gap become NULs, and come back afterwards.
    glued = " ".join(word.replace(" ", "\0") + "\0" * (len(gap) - 1) for word in words)
    lines = textwrap.wrap(
        glued, min(_TEXT_WIDTH, max(40, _columns() - _MARGIN)), break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(line.replace("\0", " ").rstrip() for line in lines)


def number(value: float | None) -> str:
    """Return a number to three digits, or a dash where there is none."""
    return MISSING if value is None else f"{value:.3g}"


def _text(view: Table) -> str:
    console = _console()
    with console.capture() as capture:
        console.print(view)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _console() -> Console:
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        width=_WIDTH,
        color_system="auto" if sys.stdout.isatty() else None,
        force_terminal=sys.stdout.isatty(),
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
