"""Progress of long passes: a bar on a terminal, lines in a log, JSON for programs; from Python a callback.

    with reported(callback):          # callback(label, done, total); None is silence
        ...

The command line shows its stages and passes; public functions report their passes to their caller or to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from budc.progress.remaining_work import RemainingWork

if TYPE_CHECKING:
    from budc.progress.displays import Display

Report = Callable[[str, int, int], object]
"""Called with a pass's name, and how many of how many units are done."""
Form = Literal["auto", "lines", "json"]

WORTH_SHOWING = 1 << 28
"""Bytes from which on reading them is shown; fewer are read within a second."""
_MEGABYTE = 10**6

_display: ContextVar[Display | None] = ContextVar("display", default=None)
_work: ContextVar[RemainingWork | None] = ContextVar("work", default=None)
_side_note: ContextVar[Callable[[], str] | None] = ContextVar("side_note", default=None)


class Bar:
    """The progress of one pass: call `advance()` after each unit of work."""

    def __init__(self, label: str, total: int, display: Display, work: RemainingWork | None = None) -> None:
        self.label, self.total, self.done, self.note = label, total, 0, ""
        self._replayed = 0
        self._started = time.monotonic()
        self._display, self._work = display, work

    def advance(
        self, note: str = "", *, replayed: bool = False, by: int = 1, forwards: int | None = None
    ) -> None:
        """Count a unit as done, or several. `replayed` ones were done by an earlier call; the pace leaves them out.

        `forwards` are those that the pass has spent, where units differ in what they cost.
        """
        self.done += by
        self.note = ", ".join(filter(None, (note, _beside())))
        self._replayed += by if replayed else 0
        self.total = max(self.total, self.done)
        if self._work is not None:
            old = self._replayed / self.done if self.done else 0.0
            self._work.advance(self.done / max(self.total, 1), old, forwards)
        self._display.advanced(self)

    def say(self, text: str) -> None:
        """Print a line for the user."""
        self._display.said(text)

    @property
    def left(self) -> float | None:
        """Seconds that are left of the pass; None before anything is done."""
        new = self.done - self._replayed
        if new <= 0:
            return None
        return (time.monotonic() - self._started) / new * (self.total - self.done)

    @property
    def all_left(self) -> float | None:
        """Seconds that are left of all passes; None where that is not known."""
        return None if self._work is None else self._work.seconds


@contextmanager
def reported(report: Report | None) -> Iterator[None]:
    """Report the passes in a with-block to `report` instead of showing them. What it raises ends the pass."""
    from budc.progress.displays import Reported

    token = _display.set(Reported(report))
    try:
        yield
    finally:
        _display.reset(token)


@contextmanager
def shown_progress(form: Form = "auto") -> Iterator[None]:
    """Show the stages and passes in a with-block: as is best for stderr, as lines, or as JSON, a line each."""
    from budc.progress.displays import chosen_display

    display = chosen_display(form)
    token = _display.set(display)
    try:
        with display.awake():
            yield
    finally:
        _display.reset(token)


@contextmanager
def planned_passes(work: RemainingWork | None) -> Iterator[None]:
    """Let the passes in a with-block say how long all of them will take, where that is known."""
    token = _work.set(work)
    try:
        yield
    finally:
        _work.reset(token)


@contextmanager
def side_note(text: Callable[[], str]) -> Iterator[None]:
    """Let every pass in a with-block say this beside its own note, such as how many workers there are."""
    token = _side_note.set(text)
    try:
        yield
    finally:
        _side_note.reset(token)


def _beside() -> str:
    text = _side_note.get()
    return "" if text is None else text()


def notice(text: str) -> None:
    """Say something to the user."""
    _current().said(text)


def silence() -> None:
    """Show nothing any more in this process."""
    from budc.progress.displays import Reported

    _display.set(Reported(None))


def stage(name: str, detail: str = "") -> None:
    """Say that something begins which has no units to count, such as loading a model."""
    _current().staged(name, detail)


@contextmanager
def progress(label: str, total: int) -> Iterator[Bar]:
    """Show or report one pass for the length of a with-block."""
    display, work = _current(), _work.get()
    if work is not None:
        work.begin(label)
    bar = Bar(label, total, display, work)
    with display.shown(bar):
        yield bar
    if work is not None:
        work.end()


@contextmanager
def hashing(total: int) -> Iterator[Callable[[int], None]]:
    """Show the hashing of `total` bytes: a `Watch` for `budc.schema.hashing`."""
    if total < WORTH_SHOWING:
        yield lambda _count: None
        return
    read = 0
    with progress("hashing the model, MB", total // _MEGABYTE) as bar:

        def advance(count: int) -> None:
            nonlocal read
            read += count
            bar.advance(by=read // _MEGABYTE - bar.done)

        yield advance


def _current() -> Display:
    from budc.progress.displays import chosen_display

    return _display.get() or chosen_display("auto")
