"""A runtime under one policy, and how its denoising loop is measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

SEED = 0
"""Of the noise."""


class Loop:
    """A runtime under a policy: its denoising loop, one full forward, and `settle`, which waits for the device."""

    def __init__(
        self,
        run: Callable[[Callable[[int], object] | None], Any],
        forward: Callable[[], object],
        settle: Callable[[], object] = lambda: None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        self.run, self.forward, self.settle = run, forward, settle
        self._figures = dict(figures or {})
        """Figures that were measured before the policy was applied."""

    def measure(self, mask: Sequence[bool], repeats: int) -> tuple[dict[str, float], Any]:
        """Return the figures and the final latents. Loops and forwards alternate, and each figure is a median."""
        latents = self.run(None)
        nfe = sum(mask)
        loops: list[float] = []
        forwards: list[float] = []
        computed: list[float] = []
        reused: list[float] = []
        for _ in range(repeats):
            loops.append(self._seconds(lambda: self.run(None)))
            # As many forwards in a row as the loop has, so that other work on the machine slows both alike.
            forwards.append(self._seconds(lambda: [self.forward() for _ in range(nfe)]) / nfe)
            ends = [time.perf_counter()]

            def note(_step: int, ends: list[float] = ends) -> None:
                self.settle()
                ends.append(time.perf_counter())

            self.run(note)
            # The first step includes the time before the loop.
            for seconds, compute in list(zip(np.diff(ends), mask, strict=True))[1:]:
                (computed if compute else reused).append(float(seconds))
        loop, forward = statistics.median(loops), statistics.median(forwards)
        figures = {
            "loopSeconds": loop,
            "forwardSeconds": forward,
            "ratio": loop / (nfe * forward),
            "computedStepSeconds": statistics.median(computed),
        } | self._figures
        if reused:
            step = statistics.median(reused)
            figures |= {
                "reusedStepSeconds": step,
                "reusedOverComputed": step / figures["computedStepSeconds"],
            }
        return figures, latents

    def _seconds(self, function: Callable[[], object]) -> float:
        self.settle()
        started = time.perf_counter()
        function()
        self.settle()
        return time.perf_counter() - started
