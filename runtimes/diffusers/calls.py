"""Calls of a pipeline under a policy: one at a time, and none while a pipeline that shares components is running."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

from budc.runtimes.admission.exclusive import ExclusiveRun
from budc.runtimes.diffusers.neighbours import Neighbours


class PipelineCalls:
    """Lets one call of `pipe` run at a time, from `install` to `remove`, and keeps its neighbours apart from it.

    `on_begin` is called before each call with the class's method and the arguments by name, and may refuse it; `on_end`
    is called after each call, whatever ended it.

    Python looks up `__call__` on the class, so `install` gives this instance a subclass of its own class, with the
    same name. Copies, pickles and other instances have the class itself, and no policy.
    """

    def __init__(
        self,
        pipe: Any,
        on_begin: Callable[[Callable[..., Any], Mapping[str, Any]], None],
        on_end: Callable[[], None],
    ) -> None:
        self.pipe = pipe
        self._on_begin = on_begin
        self._on_end = on_end
        self._class: type = type(pipe)
        self._subclass: type | None = None
        name = self._class.__name__
        self._run = ExclusiveRun(name, "begin it when the first run has ended, not in its callback")
        self.neighbours = Neighbours(name)

    def install(self) -> None:
        """Take over the calls of the pipeline; do nothing where it cannot be called."""
        if not callable(self.pipe):
            return
        original = self._class

        def call(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if pipe is not self.pipe:
                return original.__call__(pipe, *args, **kwargs)
            with self._alone():
                self._on_begin(original.__call__, _by_name(original.__call__, pipe, *args, **kwargs))
                return original.__call__(pipe, *args, **kwargs)

        def reduce(pipe: Any, protocol: Any) -> Any:
            reduced: Any = object.__reduce_ex__(pipe, protocol)
            return object.__new__, (original,), *reduced[2:]

        names = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")}
        call.__wrapped__ = original.__call__  # type: ignore[attr-defined]  # for inspect.signature
        self._subclass = type(
            original.__name__, (original,), names | {"__call__": call, "__reduce_ex__": reduce}
        )
        self.pipe.__class__ = self._subclass

    def remove(self) -> None:
        """Give the pipeline its class back; calling it again does nothing."""
        if self._subclass is not None and type(self.pipe) is self._subclass:
            self.pipe.__class__ = self._class
        self._subclass = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._run.begin():
            self.neighbours.wait(then_exclude=True)
            try:
                yield
            finally:
                self._on_end()
                self.neighbours.admit_again()


def _by_name(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Mapping[str, Any]:
    try:
        return signature(method).bind_partial(*args, **kwargs).arguments
    except TypeError:
        # The call itself says what is wrong with them.
        return {}
