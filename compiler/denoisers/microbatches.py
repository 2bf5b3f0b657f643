"""Turns: a batch in parts, as large as the memory of the device allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from budc.schema.errors import DeviceMemory

R = TypeVar("R")


class MicroBatches:
    """Runs `at_once` samples together; where that does not fit, `spare` is asked for memory, then fewer at a time.

    `spare` returns whether it made room: a batch that failed is then tried again as it was. What does not fit once is
    not tried again in later batches.
    """

    def __init__(self, at_once: int, spare: Callable[[], bool]) -> None:
        self.at_once = at_once
        self._spare = spare

    def run(self, samples: int, work: Callable[[int, int], R]) -> list[R]:
        """Return what `work(first, last)` returns for every part of a batch, in order.

        Raises:
            DeviceMemory: one sample does not fit.
        """
        parts: list[R] = []
        first = 0
        while first < samples:
            last = min(first + self.at_once, samples)
            try:
                parts.append(work(first, last))
            except torch.cuda.OutOfMemoryError:
                pass
            else:
                first = last
                continue
            self._make_room(last - first)
        return parts

    def _make_room(self, tried: int) -> None:
        # Called after the exception and its frames are gone: only then can what they held be given back.
        torch.cuda.empty_cache()
        if self._spare():
            return
        if tried == 1:
            raise DeviceMemory(
                "not even one sample can be aligned in the memory of the device",
                remedy="leave --align away, or use a device with more memory",
            )
        self.at_once = tried // 2
