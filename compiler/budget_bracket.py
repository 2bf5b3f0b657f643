"""Bracket: the smallest budget that keeps a bound, in few tries.

The margin by which a budget keeps the bound is taken to be linear in the logarithm of the budget: errors of a policy
and seconds of a loop both follow about a power law. The next budget to try is the smallest that should keep the
bound: by the line through the nearest budgets on both sides, or from one side alone with the slope so far, or the
usual one. Where the bracket was not halved by two tries, on that scale, the third halves it, so that a curve of another
form costs few tries more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

QUALITY_SLOPE = 5.5
"""How fast the logarithm of a policy's squared error falls with that of its budget; the embedded models have 5.3 and
5.7 between 6 and 14 evaluations."""
TIME_SLOPE = 1.0
"""How fast that of a loop's seconds grows."""
USUAL_SHARE = 0.2
"""The share of the most that is expected to be the answer, until something was tried."""


class _Tried(NamedTuple):
    """The logarithm of a budget, and its margin."""

    log: float
    margin: float


class Bracket:
    """Between the largest budget that is known not to keep a bound and the smallest that is, or is taken to.

    `most` is taken to keep it without a try. `slope` is the usual growth of margins, for each e-fold of the budget.
    """

    def __init__(self, fewest: int, most: int, slope: float) -> None:
        self.fewest, self.low, self.high = fewest, fewest - 1, most
        self.tried: list[int] = []
        """The budgets that were tried, in order."""
        self._usual = slope
        self._below: list[_Tried] = []
        self._above: list[_Tried] = []
        self._widths: list[float] = []

    def copy(self) -> Bracket:
        """Return a bracket that goes on from here on its own."""
        other = Bracket(self.low + 1, self.high, self._usual)
        other.fewest, other.tried = self.fewest, self.tried[:]
        other._below, other._above, other._widths = self._below[:], self._above[:], self._widths[:]
        return other

    @property
    def next(self) -> int | None:
        """The budget to try next; None once `high` is the answer."""
        if self.high - self.low <= 1:
            return None
        middle = math.sqrt(max(self.low, 1) * self.high)
        stuck = len(self._widths) >= 2 and self._width > self._widths[-2] / 2
        zero = None if stuck else self._zero
        # A hair less, so that a budget that is hit exactly is not rounded up.
        wanted = round(middle) if zero is None else math.ceil(zero - 1e-9)
        return min(self.high - 1, max(self.low + 1, wanted))

    def tell(self, nfe: int, margin: float, *, kept: bool) -> None:
        """Say what came of a try: whether the bound is kept, and by how much."""
        margin = max(0.0, margin) if kept else min(0.0, margin)
        tried = _Tried(math.log(nfe), max(-50.0, min(50.0, margin)))
        self.tried.append(nfe)
        self._widths.append(self._width)
        if kept:
            self.high = nfe
            self._above.append(tried)
        else:
            self.low = nfe
            self._below.append(tried)

    def expected(self) -> list[int]:
        """Return the budgets that are likely to be tried from here on, and last the answer, tried before or not."""
        other, tries = self.copy(), list[int]()
        zero = USUAL_SHARE * self.high if self._zero is None else self._zero
        while (nfe := other.next) is not None:
            tries.append(nfe)
            margin = self._usual * (math.log(nfe) - math.log(max(zero, 0.5)))
            other.tell(nfe, margin, kept=margin >= 0)
        return [*tries, other.high]

    @property
    def _width(self) -> float:
        return math.log(self.high / max(self.low, 1))

    @property
    def _zero(self) -> float | None:
        """Where the line through what is known crosses zero; None where nothing is."""
        if self._below and self._above:
            (x0, y0), (x1, y1) = self._below[-1], self._above[-1]
            return math.exp(x0 - y0 * (x1 - x0) / (y1 - y0)) if y1 > y0 else None
        known = self._below or self._above
        if not known:
            return None
        x, y = known[-1]
        return math.exp(min(x - y / self._slope(known), 20.0))

    def _slope(self, known: list[_Tried]) -> float:
        """Return the slope between the nearest two, within a third and three times the usual one."""
        if len(known) < 2:
            return self._usual
        (x0, y0), (x1, y1) = known[-2:]
        return min(3 * self._usual, max(self._usual / 3, (y1 - y0) / (x1 - x0)))
