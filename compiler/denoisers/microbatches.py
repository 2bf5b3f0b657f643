"""Micro-batches: many samples in as few pieces as the memory of the device allows.

Where memory runs out in a forward, it is answered here: make room, or halve the micro-batch, and try again.
`budc.runtimes.sampling.device_memory` says what counts as running out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from budc.option_names import worded
from budc.runtimes.sampling.device_memory import free_unused_memory, is_out_of_memory
from budc.schema.errors import DeviceMemory

R = TypeVar("R")


class MicroBatches:
    """Runs up to `at_once` samples together, fewer once these did not fit into the memory of the device.

    A size that did not fit is not tried again. `make_room` is asked before the size is halved: it returns whether it
    freed memory, so that the same size deserves another try. `remedy` is what the user is told where not even one
    sample fits (default: another way to compile).
    """

    def __init__(
        self, at_once: int, *, make_room: Callable[[], bool] | None = None, remedy: str = ""
    ) -> None:
        self.at_once = at_once
        self._make_room = make_room
        self._remedy = remedy

    def run(
        self,
        samples: int,
        work: Callable[[int, int], R],
        *,
        size: Callable[[int], int] | None = None,
        halved: Callable[[int], object] | None = None,
    ) -> list[R]:
        """Return what `work(first, last)` returns for every micro-batch of `samples`, in order.

        `size(first)` is how many samples may run together from `first` on (default: `at_once`); `work` pads a last
        micro-batch that is shorter, or leaves it short. `halved` is told every new `at_once`.

        Raises:
            DeviceMemory: one sample does not fit.
        """
        results: list[R] = []
        first = 0
        while first < samples:
            tried = min(self.at_once, samples - first) if size is None else size(first)
            last = min(first + tried, samples)
            try:
                results.append(work(first, last))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                first = last
                continue
            # Only here, after the exception and its frames are gone, can what they held be freed.
            free_unused_memory()
            if self._make_room is None or not self._make_room():
                self._halve(tried, halved)
        return results

    def _halve(self, tried: int, halved: Callable[[int], object] | None) -> None:
        if tried == 1:
            raise DeviceMemory(
                "one sample does not fit into the memory of the device", remedy=self._remedy or _remedy()
            )
        while self.at_once >= tried:
            self.at_once //= 2
        if halved is not None:
            halved(self.at_once)


def _remedy() -> str:
    return worded(
        "use --offload group, a smaller --height and --width, or a device with more memory",
        "use smaller samples, or a device with more memory",
    )
