"""Remaining work: how long all passes of a command take, from what they are expected to cost and the pace so far."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import NormalDist


class RemainingWork:
    """Forwards that are left, by pass.

    `expected` has what a pass's label begins with -> the forwards of every pass that does, in order. What an earlier
    call did counts as done and not for the pace. A pass that was not expected counts for neither.

    `spread` has, by the same prefixes, the standard deviation of the logarithm of what such a pass takes, where what it
    finds decides how long it is. `each` has, for each such pass in order and where it is not 1, what one forward of it
    is worth in expected ones.
    """

    def __init__(
        self,
        expected: Mapping[str, Sequence[float]],
        each: Mapping[str, Sequence[float]] | None = None,
        spread: Mapping[str, float] | None = None,
    ) -> None:
        self._each = {prefix: list(worth) for prefix, worth in (each or {}).items()}
        self._spread = spread or {}
        self._done = self._spent = 0.0
        self._running = _Pass()
        self.expect(expected)

    def expect(self, expected: Mapping[str, Sequence[float]]) -> None:
        """Say anew which passes are still to begin."""
        self._left = {prefix: list(forwards) for prefix, forwards in expected.items()}

    def begin(self, label: str) -> None:
        """Begin a pass."""
        prefix = max((known for known in self._left if label.startswith(known)), key=len, default="")
        waiting = self._left.get(prefix, [])
        worth = self._each.get(prefix, [])
        self._running = _Pass(
            waiting.pop(0) if waiting else 0.0, self._spread.get(prefix, 0.0), worth.pop(0) if worth else 1.0
        )

    def advance(self, share: float, replayed: float, forwards: float | None = None) -> None:
        """Say which share of the pass is done, and which part of that by an earlier call.

        Where units differ in what they cost, the `forwards` that were spent say the share.
        """
        self._running.advance(share, replayed, forwards)

    def end(self) -> None:
        """End a pass, however few units it turned out to have."""
        if self._running.expected:
            self._spent += self._running.seconds
            self._done += self._running.done_at_end
        self._running = _Pass()

    @property
    def seconds(self) -> float | None:
        """Seconds that are left; None until some work was done."""
        running = self._running
        done = self._done + running.done
        if done <= 0:
            return None
        spent = self._spent + (running.seconds if running.expected else 0.0)
        left = spent / done * (running.left + sum(map(sum, self._left.values())))
        return max(left, running.seconds_left)


class _Pass:
    """A pass that runs: forwards expected of it, done by now, and of these by an earlier call."""

    def __init__(self, expected: float = 0.0, spread: float = 0.0, worth: float = 1.0) -> None:
        self.expected, self._spread, self._worth = expected, spread, worth
        self._total, self._now, self._old = expected, 0.0, 0.0
        self._counted = False
        self._began = time.monotonic()

    def advance(self, share: float, replayed: float, forwards: float | None) -> None:
        if forwards is not None and self.expected:
            self._counted = True
            self._now = self._worth * forwards
            self._total = likely_total(self.expected, self._now, self._spread)
        else:
            self._now = share * self._total
        self._old = replayed * self._now

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def done(self) -> float:
        return self._now - self._old

    @property
    def seconds_left(self) -> float:
        """Seconds by its own pace, where units are alike: they may be dearer than expected, as frames are to decode."""
        return 0.0 if self._counted or self.done <= 0 else self.seconds / self.done * self.left

    @property
    def done_at_end(self) -> float:
        return (self._now if self._counted else self._total) - self._old

    @property
    def left(self) -> float:
        return self._total - self._now


def likely_total(expected: float, spent: float, spread: float) -> float:
    """Return what a pass will have taken that has taken so much and goes on.

    It is the median of the log-normal distribution about `expected` above `spent`.
    """
    if spread <= 0 or spent <= 0:
        return max(expected, spent)
    normal = NormalDist(math.log(expected), spread)
    passed = normal.cdf(math.log(spent))
    # In the far tail, where little more is likely, the distribution's own numbers run out.
    return max(spent, math.exp(normal.inv_cdf(min((1 + passed) / 2, 1 - 1e-9))))
