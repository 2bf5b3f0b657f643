"""Counts that are an outcome: what is expected, and between which bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Count(NamedTuple):
    """A number that is known before the run, or is expected to lie from `least` to `most`."""

    expected: int
    least: int
    most: int

    @classmethod
    def exactly(cls, number: int) -> Count:
        """Return a number that is known."""
        return cls(number, number, number)

    @classmethod
    def total(cls, counts: Iterable[Count]) -> Count:
        """Return the sum of counts, bounds added up."""
        counts = list(counts)
        return cls(*(sum(values) for values in zip(*counts, strict=True))) if counts else cls.exactly(0)

    def times(self, factor: int) -> Count:
        """Return so many times this."""
        return Count(*(factor * value for value in self))

    def share(self, share: float) -> Count:
        """Return a share of this, rounded."""
        return Count(*(round(share * value) for value in self))

    @property
    def known(self) -> bool:
        """Whether it is no outcome."""
        return self.least == self.most
