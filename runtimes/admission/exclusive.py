"""One run at a time: all runs of a pipeline share buffers, a scheduler and a step machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from budc.schema.errors import RefusedRun


class ExclusiveRun:
    """Lets one run go at a time. A run in another thread waits; one inside a run of the same thread could never end.

    `name` and `remedy` are for the error that says so.
    """

    def __init__(self, name: str, remedy: str) -> None:
        self._name = name
        self._remedy = remedy
        self._lock = threading.Lock()
        self._thread: int | None = None

    @property
    def running(self) -> bool:
        """Whether a run is under way, in any thread."""
        return self._thread is not None

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Hold the pipeline for the length of a with-block.

        Raises:
            RefusedRun: this thread is within another run of the pipeline.
        """
        thread = threading.get_ident()
        if self._thread == thread:
            raise RefusedRun(
                f"this {self._name} is running: another run of it was begun in the same thread, "
                "before the first has ended",
                remedy=self._remedy,
            )
        with self._lock:
            self._thread = thread
            try:
                yield
            finally:
                self._thread = None
