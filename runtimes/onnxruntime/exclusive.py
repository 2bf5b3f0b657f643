"""One run at a time: all runs of a pipeline share buffers, bound sessions and a step machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from budc.schema.errors import RefusedRun


class ExclusiveRun:
    """Lets one run go at a time. A run in another thread waits; one inside a run of the same thread could never end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: int | None = None

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Hold the pipeline for the length of a with-block.

        Raises:
            RefusedRun: this thread is within another run of the pipeline.
        """
        thread = threading.get_ident()
        if self._thread == thread:
            raise RefusedRun(
                "this pipeline is running: another run of it was begun in the same thread, before the first has ended",
                remedy="begin it when the first run has ended, not in its on_step, or load the policy a second time",
            )
        with self._lock:
            self._thread = thread
            try:
                yield
            finally:
                self._thread = None
