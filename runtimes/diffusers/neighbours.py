"""Neighbours: other pipelines that use a component of one under a policy, and when they may."""

import sys
import threading
import time
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

from diffusers import DiffusionPipeline, ModularPipeline

from budc.schema.errors import RefusedRun

_WAIT = 0.01
"""Seconds between two looks at whether a neighbour's run has ended, which nothing tells us."""

_LOOKS = 3
"""A look at another thread's stack can miss what is on it, where the thread returns from a function just then."""


def calling_pipeline() -> Any | None:
    """Return the pipeline whose method is the innermost one on this thread's stack; None in a loop without pipeline.

    Components do not know who calls them, and a scheduler or a transformer may belong to several pipelines.
    """
    return next(_pipelines_on(sys._getframe(1)), None)


def _pipelines_on(frame: FrameType | None) -> Iterator[Any]:
    """Yield the pipelines whose methods are on a stack, the innermost first."""
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self":
            owner = frame.f_locals.get("self")
            if isinstance(owner, DiffusionPipeline | ModularPipeline):
                yield owner
        frame = frame.f_back


class Neighbours:
    """Lets neighbours and the calls of a pipeline, a `name`, run one after the other.

    A neighbour that begins during a call is not admitted. A call that begins during a neighbour's waits for it, or is
    refused where both are in one thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._excluded = False
        self._seen: dict[tuple[int, int], weakref.ref[Any]] = {}
        """(thread, id) -> a neighbour that has used a component in this thread, and may be using it still."""

    def admits(self, neighbour: Any) -> bool:
        """Return whether a neighbour, which is about to use a component, may do so; if so, calls wait for it."""
        with self._lock:
            if not self._excluded:
                self._seen[threading.get_ident(), id(neighbour)] = weakref.ref(neighbour)
            return not self._excluded

    def wait(self, *, then_exclude: bool = False) -> None:
        """Return when no neighbour is running; with `then_exclude` none is admitted until `admit_again`.

        Raises:
            RefusedRun: one is running in this thread, and could not end before this returns.
        """
        while True:
            with self._lock:
                running = self._running()
                if not running:
                    self._excluded = then_exclude
                    return
            if threading.get_ident() in running:
                other = type(running[threading.get_ident()]).__name__
                raise RefusedRun(
                    f"this {self._name} shares components with a {other} that is running: this run was begun in the "
                    "same thread, before that one has ended",
                    remedy="begin it when that run has ended, not in its callback",
                )
            del running
            time.sleep(_WAIT)

    def admit_again(self) -> None:
        """Admit neighbours: the call has ended."""
        with self._lock:
            self._excluded = False

    def _running(self) -> dict[int, Any]:
        """Return thread -> neighbour whose run has not ended; forget those that have ended."""
        running = {}
        for (thread, number), reference in list(self._seen.items()):
            neighbour = reference()
            if neighbour is not None and _is_running(neighbour, thread):
                running[thread] = neighbour
            else:
                del self._seen[thread, number]
        return running


def _is_running(pipe: Any, thread: int) -> bool:
    """Return whether a method of `pipe` is on a thread's stack."""
    return any(
        any(owner is pipe for owner in _pipelines_on(sys._current_frames().get(thread)))
        for _ in range(_LOOKS)
    )
