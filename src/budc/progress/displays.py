"""How progress is shown: a bar on a terminal, a line now and then in a log, JSON lines, or a callback's own way.

Text from a file passes `printable` on the way here.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from budc.progress import Bar, Form, Report

LOG_EVERY = 15.0
"""Seconds between two lines of a log."""
JSON_EVERY = 1.0
"""Seconds between two events of one pass."""
ALIVE_EVERY = 2.0
"""Seconds after which a program is told that a stage still goes on."""


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


class _Written(Display, ABC):
    """Writes lines on stderr. Where nothing was written or done for long, it says that the stage goes on."""

    quiet: float

    def __init__(self) -> None:
        self._written = self._began = self._moved = time.monotonic()
        self._stage = ""

    def _write(self, line: str) -> None:
        self._written = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def _began_stage(self, name: str) -> None:
        self._stage, self._began = name, time.monotonic()

    @abstractmethod
    def goes_on(self, seconds: float) -> str:
        """Return the line of a stage that goes on after so many seconds."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Say in a thread of its own that a stage goes on."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(self.quiet / 4):
                now = time.monotonic()
                if self._stage and now - max(self._written, self._moved) >= self.quiet:
                    self._write(self.goes_on(now - self._began))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Lines(_Written):
    """Lines for a log."""

    quiet = LOG_EVERY

    def staged(self, name: str, detail: str) -> None:
        """Write the stage."""
        self._began_stage(name)
        self._write(f"{name}: {detail}" if detail else name)

    @contextmanager
    def shown(self, bar: Bar) -> Iterator[None]:
        """Let what is written be about this pass."""
        self._began_stage(bar.label)
        yield

    def advanced(self, bar: Bar) -> None:
        """Write a line now and then."""
        self._moved = time.monotonic()
        if time.monotonic() - self._written < LOG_EVERY:
            return
        note = f" {bar.note}" if bar.note else ""
        left = "" if bar.left is None else f", about {bar.left:.0f} s left"
        overall = "" if bar.all_left is None else f"; all: about {in_words(bar.all_left)} left"
        self._write(f"{bar.label}: {bar.done}/{bar.total}{note}{left}{overall}")

    def said(self, text: str) -> None:
        """Write the line."""
        self._write(text)

    def goes_on(self, seconds: float) -> str:
        """Name the stage."""
        return f"{self._stage}: still going on after {in_words(seconds)}"


class JsonLines(_Written):
    """One JSON object a line: `event` is stage, pass, progress, done, note or alive."""

    quiet = ALIVE_EVERY

    def _event(self, event: str, **fields: object) -> None:
        self._write(json.dumps({"event": event, **fields}))

    def staged(self, name: str, detail: str) -> None:
        """Write the stage."""
        self._began_stage(name)
        self._event("stage", stage=name, detail=detail)

    @contextmanager
    def shown(self, bar: Bar) -> Iterator[None]:
        """Write that the pass begins, and that it is done."""
        self._began_stage(bar.label)
        self._event("pass", stage=bar.label, total=bar.total)
        started = time.monotonic()
        yield
        self._event("done", stage=bar.label, seconds=round(time.monotonic() - started, 3))

    def advanced(self, bar: Bar) -> None:
        """Write at most one event a second."""
        self._moved = time.monotonic()
        if time.monotonic() - self._written < JSON_EVERY:
            return
        counts = {"done": bar.done, "total": bar.total, "note": bar.note}
        self._event(
            "progress", stage=bar.label, **counts, left=_rounded(bar.left), allLeft=_rounded(bar.all_left)
        )

    def said(self, text: str) -> None:
        """Write the line as a note."""
        self._event("note", text=text)

    def goes_on(self, seconds: float) -> str:
        """Name the stage."""
        return json.dumps({"event": "alive", "stage": self._stage, "seconds": round(seconds, 1)})


class Terminal(Display):
    """A bar for a pass, and a spinner for a stage without units."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner: Status | None = None
        self._awake = False
        self._update: Callable[[], None] = lambda: None

    def staged(self, name: str, detail: str) -> None:
        """Print the stage, and let a spinner go on until the next one."""
        self._rest()
        text = f"{name}: {detail}" if detail else name
        self._console.print(text, markup=False, highlight=False)
        if self._awake:
            self._spinner = self._console.status(name)
            self._spinner.start()

    @contextmanager
    def shown(self, bar: Bar) -> Iterator[None]:
        """Show a bar with the time that is left of it, and of all."""
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._rest()
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[overall]}"),
        )  # fmt: skip
        with Progress(*columns, console=self._console) as view:
            task = view.add_task(escape(bar.label), total=bar.total, overall="")

            def update() -> None:
                overall = "" if bar.all_left is None else f"all: {in_words(bar.all_left)} left"
                description = escape(f"{bar.label} {bar.note}".rstrip())
                view.update(
                    task, completed=bar.done, total=bar.total, description=description, overall=overall
                )

            self._update = update
            yield

    def advanced(self, bar: Bar) -> None:
        """Move the bar."""
        self._update()

    def said(self, text: str) -> None:
        """Print the line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let stages have a spinner."""
        self._awake = True
        try:
            yield
        finally:
            self._awake = False
            self._rest()

    def _rest(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


def chosen_display(form: Form) -> Display:
    """Return a display: the form that is asked for, or the best for what stderr is."""
    if form == "json":
        return JsonLines()
    if form == "lines":
        return Lines()
    from rich.console import Console

    console = Console(stderr=True)
    return Terminal(console) if console.is_terminal else Lines()


def in_words(seconds: float) -> str:
    """Return a duration in words: "40 s", "6 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
