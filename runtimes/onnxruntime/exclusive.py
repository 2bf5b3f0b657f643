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
                "a run of this pipeline is under way in the same thread: another one was begun in its on_step",
                remedy="begin it when the first has ended, or load the policy a second time",
            )
        with self._lock:
            self._thread = thread
            try:
                yield
            finally:
                self._thread = None
