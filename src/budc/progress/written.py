"""Progress as lines on stderr: for a log, or JSON for a program."""

from __future__ import annotations

import json
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from budc.progress.displays import Display, in_words

if TYPE_CHECKING:
    from budc.progress import Bar

LOG_EVERY = 15.0
"""Seconds between two lines of a log on a stage that goes on for long."""
JSON_EVERY = 1.0
"""Seconds between two events of one pass."""
ALIVE_EVERY = 2.0
"""Seconds after which it is first said that a stage still goes on, and to a program again and again."""


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
    def goes_on(self, seconds: float) -> None:
        """Write that a stage goes on after so many seconds."""

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Say in a thread of its own that a stage goes on."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(self.quiet / 4):
                now = time.monotonic()
                if self._stage and now - max(self._written, self._moved) >= self.quiet:
                    self.goes_on(now - self._began)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Lines(_Written):
    """Lines for a log: on each stage soon a second one, then ever fewer, so that hours do not fill the log."""

    _detail = ""

    def __init__(self) -> None:
        super().__init__()
        self._began_stage("")

    def _began_stage(self, name: str) -> None:
        super()._began_stage(name)
        self.quiet = min(ALIVE_EVERY, LOG_EVERY)

    def _write_further(self, line: str) -> None:
        self._write(line)
        self.quiet = min(2 * self.quiet, LOG_EVERY)

    def staged(self, name: str, detail: str) -> None:
        """Write the stage."""
        self._began_stage(name)
        self._detail = detail
        self._write(f"{name}: {detail}" if detail else name)

    @contextmanager
    def shown(self, bar: Bar) -> Iterator[None]:
        """Write that the pass begins, unless its stage has just said so."""
        self._began_stage(bar.label)
        if bar.label != self._detail:
            self._write(bar.label)
        yield

    def advanced(self, bar: Bar) -> None:
        """Write a line now and then."""
        self._moved = time.monotonic()
        if time.monotonic() - self._written < self.quiet:
            return
        note = f" {bar.note}" if bar.note else ""
        left = "" if bar.left is None else f", about {bar.left:.0f} s left"
        overall = "" if bar.all_left is None else f"; all: about {in_words(bar.all_left)} left"
        self._write_further(f"{bar.label}: {bar.done}/{bar.total}{note}{left}{overall}")

    def said(self, text: str) -> None:
        """Write the line."""
        self._write(text)

    def goes_on(self, seconds: float) -> None:
        """Write the stage's name."""
        self._write_further(f"{self._stage}: still going on after {in_words(seconds)}")


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

    def goes_on(self, seconds: float) -> None:
        """Write the stage's name."""
        self._event("alive", stage=self._stage, seconds=round(seconds, 1))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
