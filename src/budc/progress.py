"""Progress of long passes: on stderr a bar with time left, or a line now and then in a log; from Python a callback.

    with reported(callback):          # callback(label, done, total); None is silence
        ...

The command line shows its passes; public functions report them to their caller or to nobody.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Report = Callable[[str, int, int], object]
"""Called with a pass's name, and how many of how many units are done."""


def _on_stderr(*_: object) -> None:
    """Stand for a pass that is shown on stderr."""


_report: ContextVar[Report | None] = ContextVar("report", default=_on_stderr)

LOG_EVERY = 15.0
"""Seconds between two lines where stderr is not a terminal."""
WORTH_SHOWING = 1 << 28
"""Bytes from which on reading them is shown; fewer are read within a second."""


class Bar:
    """The progress of one pass: call `advance()` after each unit of work."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self._replayed = 0
        self._started = self._shown = time.monotonic()

    def advance(self, note: str = "", *, replayed: bool = False) -> None:
        """Count one unit as done. `replayed` units were done by an earlier call; the pace leaves them out."""
        self.done += 1
        self._replayed += replayed
        if time.monotonic() - self._shown >= LOG_EVERY:
            self._shown = time.monotonic()
            pace = (self._shown - self._started) / max(1, self.done - self._replayed)
            left = pace * max(0, self.total - self.done)
            print(
                f"{self.label}: {self.done}/{self.total} {note} about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def say(self, text: str) -> None:
        """Print a line for the user."""
        print(text, file=sys.stderr, flush=True)


class _TerminalBar(Bar):
    def __init__(self, label: str, total: int, view: Progress) -> None:
        super().__init__(label, total)
        self._view = view
        self._task = view.add_task(label, total=total)

    def advance(self, note: str = "", *, replayed: bool = False) -> None:
        self.done += 1
        self._view.update(
            self._task, advance=1, total=max(self.total, self.done), description=f"{self.label} {note}"
        )

    def say(self, text: str) -> None:
        self._view.console.print(text, markup=False, highlight=False)


class _ReportedBar(Bar):
    def __init__(self, label: str, total: int, report: Report | None) -> None:
        super().__init__(label, total)
        self._report = report

    def advance(self, note: str = "", *, replayed: bool = False) -> None:
        self.done += 1
        if self._report is not None:
            self._report(self.label, self.done, max(self.total, self.done))

    def say(self, text: str) -> None:
        pass


@contextmanager
def reported(report: Report | None) -> Iterator[None]:
    """Report the passes in a with-block to `report` instead of showing them. What it raises ends the pass."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


@contextmanager
def progress(label: str, total: int) -> Iterator[Bar]:
    """Show or report one pass for the length of a with-block."""
    if (report := _report.get()) is not _on_stderr:
        yield _ReportedBar(label, total, report)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Bar(label, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as view:
        yield _TerminalBar(label, total, view)


@contextmanager
def hashing(total: int) -> Iterator[Callable[[int], None]]:
    """Show the hashing of `total` bytes: a `Watch` for `budc.schema.hashing`."""
    if total < WORTH_SHOWING:
        yield lambda _count: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _log_hashing(total)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as view:
        task = view.add_task("hashing the model", total=total)
        yield lambda count: view.update(task, advance=count)


def _log_hashing(total: int) -> Callable[[int], None]:
    started = shown = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal shown, done
        done += count
        if time.monotonic() - shown >= LOG_EVERY:
            shown = time.monotonic()
            left = (shown - started) / done * (total - done)
            print(
                f"hashing the model: {done / 1e9:.1f} of {total / 1e9:.1f} GB, about {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return advance
