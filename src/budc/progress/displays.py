"""How progress is shown: not at all, in a callback's own way, or in a form that suits what stderr is.

Text from a file passes `printable` on the way here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from budc.progress import Bar, Form, Report


class Display:
    """Shows nothing."""

    def staged(self, name: str, detail: str) -> None:
        """Show that a stage begins."""

    @contextmanager
    def shown(self, bar: Bar) -> Iterator[None]:
        """Show a pass for the length of a with-block."""
        yield

    def advanced(self, bar: Bar) -> None:
        """Show that units of a pass are done."""

    def said(self, text: str) -> None:
        """Show a line."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Keep showing that stages without units go on, for the length of a with-block."""
        yield


class Reported(Display):
    """Tells a callback."""

    def __init__(self, report: Report | None) -> None:
        self._report = report

    def advanced(self, bar: Bar) -> None:
        """Tell how many of how many units are done."""
        if self._report is not None:
            self._report(bar.label, bar.done, bar.total)


def chosen_display(form: Form) -> Display:
    """Return a display: the form that is asked for, or the best for what stderr is."""
    from budc.progress.written import JsonLines, Lines

    if form == "json":
        return JsonLines()
    if form == "lines":
        return Lines()
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return Lines()
    from budc.progress.terminal import Terminal

    return Terminal(console)


def in_words(seconds: float) -> str:
    """Return a duration in words: "40 s", "6 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
