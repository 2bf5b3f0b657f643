"""Progress on a terminal: a bar for a pass, a spinner for a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from budc.progress.displays import Display, in_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from budc.progress import Bar


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
