"""Sigmas: the noise levels of a sampler, terminal value included."""

import math
from collections.abc import Iterable
from typing import Self

from budc.schema.errors import SemanticsViolation
from budc.schema.mask import MAX_STEPS

MAX_SIGMA = 1e6


class Sigmas(tuple[float, ...]):
    """`steps + 1` noise levels, strictly decreasing; the last is the terminal value (0 for most samplers).

    Step k moves the latents from `sigmas[k]` to `sigmas[k + 1]`. A Sigmas is a validated tuple of float;
    its entries are kept exactly as given.

    Raises:
        SemanticsViolation: fewer than two or too many values, one that is not finite, negative or above
            `MAX_SIGMA`, or one that is not below its predecessor.
    """

    __slots__ = ()

    def __new__(cls, values: Iterable[float]) -> Self:
        """Validate `values` and wrap them as floats."""
        self = super().__new__(cls, (float(value) for value in values))
        if not 2 <= len(self) <= MAX_STEPS + 1:
            raise SemanticsViolation(f"there are {len(self)} sigmas, expected 2 to {MAX_STEPS + 1}")
        for index, sigma in enumerate(self):
            if not math.isfinite(sigma) or not 0 <= sigma <= MAX_SIGMA:
                raise SemanticsViolation(
                    f"sigmas[{index}] is {sigma}, expected a number from 0 to {MAX_SIGMA:g}"
                )
            if index and sigma >= self[index - 1]:
                raise SemanticsViolation(
                    f"sigmas[{index}] is {sigma}, not below the {self[index - 1]} before it"
                )
        return self

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the schedule with these noise levels, terminal value included."""
        return cls(values)

    @property
    def steps(self) -> int:
        """Number of steps: one fewer than there are noise levels."""
        return len(self) - 1

    @property
    def terminal(self) -> float:
        """The noise level at which the sampler stops."""
        return self[-1]
