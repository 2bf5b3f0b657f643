"""The stages of a generation: a line on stderr where each begins, and at the end how long each took.

    with shown_stages():
        stage("load", "Wan2.1 nano")
        ...

Outside such a block `stage` does nothing, so that what generates needs no display.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import click

from budc import progress
from budc.schema.printable import printable


class _Stages:
    """Seconds by stage; a stage ends where the next one begins."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running, self._since = "", 0.0

    def begin(self, name: str) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running] = self.seconds.get(self._running, 0.0) + now - self._since
        self._running, self._since = name, now


_stages: ContextVar[_Stages | None] = ContextVar("stages", default=None)


def stage(name: str, detail: str = "") -> None:
    """Say that a stage begins. The seconds of stages of one name are added up."""
    if (stages := _stages.get()) is not None:
        stages.begin(name)
        progress.stage(name, printable(detail))


@contextmanager
def shown_stages() -> Iterator[None]:
    """Show the stages of a with-block, and what each took unless the block is left by an error."""
    stages = _Stages()
    token = _stages.set(stages)
    try:
        yield
    finally:
        _stages.reset(token)
    stages.begin("")
    click.echo(", ".join(f"{name} {took:.1f} s" for name, took in stages.seconds.items()), err=True)


def run_label(method: str, index: int, count: int) -> str:
    """Return what a method's run of prompt `index` is called; where there is one prompt, it is not numbered."""
    return method if count == 1 else f"{method} {index + 1}/{count}"
