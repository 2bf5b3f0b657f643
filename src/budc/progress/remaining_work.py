"""Remaining work: how long all passes of a command take, from what they are expected to cost and the pace so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence


class RemainingWork:
    """Forwards that are left, by pass.

    `expected` has what a pass's label begins with -> the forwards of every pass that does, in order. What an earlier
    call did counts as done and not for the pace. A pass that was not expected counts for neither. `each` has, likewise
    and where it is not 1, what one forward of a pass is worth in expected ones.
    """

    def __init__(
        self, expected: Mapping[str, Sequence[float]], each: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        self._each = {prefix: list(worth) for prefix, worth in (each or {}).items()}
        self._worth = 1.0
        self._left = {prefix: list(forwards) for prefix, forwards in expected.items()}
        self._done = self._replayed = 0.0
        self._spent = 0.0
        self._forwards = 0.0
        self._share, self._old, self._since = 0.0, 0.0, time.monotonic()

    def begin(self, label: str) -> None:
        """Begin a pass."""
        prefix = max((known for known in self._left if label.startswith(known)), key=len, default="")
        waiting = self._left.get(prefix, [])
        self._forwards = waiting.pop(0) if waiting else 0.0
        worth = self._each.get(prefix, [])
        self._worth = worth.pop(0) if worth else 1.0
        self._share = self._old = 0.0
        self._since = time.monotonic()

    def share_of(self, forwards: float) -> float:
        """Return which share of the pass so many forwards are."""
        return min(1.0, self._worth * forwards / self._forwards) if self._forwards else 0.0

    def advance(self, share: float, replayed: float) -> None:
        """Say which share of the pass is done, and which was by an earlier call."""
        self._share, self._old = share, replayed

    def end(self) -> None:
        """End a pass, however few units it turned out to have."""
        if self._forwards:
            self._spent += time.monotonic() - self._since
            self._done += self._forwards * (1.0 - self._old)
        self._forwards = 0.0

    @property
    def seconds(self) -> float | None:
        """Seconds that are left; None until some work was done."""
        running = time.monotonic() - self._since if self._forwards else 0.0
        done = self._done + self._forwards * (self._share - self._old)
        if done <= 0:
            return None
        left = self._forwards * (1.0 - self._share) + sum(map(sum, self._left.values()))
        return (self._spent + running) / done * left
