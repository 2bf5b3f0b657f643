"""Predictor: how a reused step is predicted from the residuals of the steps computed before it.

    r̂_k = Σ_i c[k, i] · r_{prev_i}        prev_0 is the newest computed step, prev_1 the one before it, …

    >>> mask = StepMask.of([True, True, False, True, False])
    >>> Predictor.plain_reuse(mask)
    Predictor(((), (), (1.0,), (), (1.0,)))

One coefficient of 1.0 is the plain reuse of arXiv 2606.13496; two or three forecast.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Self

from budc.schema.errors import SemanticsViolation
from budc.schema.mask import MAX_STEPS, StepMask

MAX_TERMS = 3
MAX_COEFFICIENT = 64.0


class Predictor(tuple[tuple[float, ...], ...]):
    """One row of coefficients per step, newest residual first; a computed step has an empty row.

    The rows fix the mask (`Predictor.mask`). A Predictor is a validated tuple of tuples.

    Raises:
        SemanticsViolation: no rows or more than `MAX_STEPS`; a row longer than `MAX_TERMS` or than the number
            of steps computed before it (so the first row must be empty); a coefficient that is not finite or
            above `MAX_COEFFICIENT` in magnitude.
    """

    __slots__ = ()

    def __new__(cls, rows: Iterable[Iterable[float]]) -> Self:
        """Validate `rows` and wrap them as tuples of floats."""
        self = super().__new__(cls, (tuple(float(c) for c in row) for row in rows))
        if not 1 <= len(self) <= MAX_STEPS:
            raise SemanticsViolation(f"predictor has {len(self)} rows, expected 1 to {MAX_STEPS}")
        computed = 0
        for step, row in enumerate(self):
            if not row:
                computed += 1
                continue
            if len(row) > MAX_TERMS:
                raise SemanticsViolation(
                    f"predictor[{step}] has {len(row)} coefficients, at most {MAX_TERMS} allowed"
                )
            if len(row) > computed:
                raise SemanticsViolation(
                    f"predictor[{step}] needs {len(row)} residuals, but only {computed} come before it"
                )
            for term, coefficient in enumerate(row):
                # NaN fails every comparison, so this line refuses it too.
                if not abs(coefficient) <= MAX_COEFFICIENT:
                    raise SemanticsViolation(
                        f"predictor[{step}][{term}] is {coefficient}, outside ±{MAX_COEFFICIENT:g}"
                    )
        return self

    def __repr__(self) -> str:
        return f"Predictor({tuple(self)!r})"

    @classmethod
    def of(cls, rows: Iterable[Iterable[float]], mask: StepMask, first_steps: Sequence[int] = ()) -> Self:
        """Return the predictor with these rows, which must belong to `mask`.

        `first_steps`, ascending, are the steps at which another denoiser takes over; it reuses its own residuals only.

        Raises:
            SemanticsViolation: the rows are not one per step, or are not empty exactly where `mask` computes;
                a first step is reused, or a row reaches back over one.
        """
        self = cls(rows)
        if len(self) != len(mask):
            raise SemanticsViolation(f"predictor has {len(self)} rows, but the mask has {len(mask)} steps")
        for step, (row, compute) in enumerate(zip(self, mask, strict=True)):
            if compute and row:
                raise SemanticsViolation(f"predictor[{step}] has coefficients, but step {step} is computed")
            if not compute and not row:
                raise SemanticsViolation(f"predictor[{step}] is empty, but step {step} is reused")
        for first, end in pairwise((*first_steps, len(mask))):
            if not mask[first]:
                raise SemanticsViolation(
                    f"mask[{first}] is false, but another denoiser's first step is there"
                )
            for step in range(first, end):
                if len(self[step]) > (computed := sum(mask[first:step])):
                    raise SemanticsViolation(
                        f"predictor[{step}] needs {len(self[step])} residuals, but only {computed} come after "
                        f"the denoiser changes at step {first}"
                    )
        return self

    @classmethod
    def plain_reuse(cls, mask: StepMask) -> Self:
        """Return the predictor that repeats the newest residual unchanged."""
        return cls(() if compute else (1.0,) for compute in mask)

    @property
    def mask(self) -> StepMask:
        """The mask that these rows belong to: computed where a row is empty."""
        return StepMask.of(not row for row in self)

    @property
    def terms(self) -> int:
        """The most residuals that any step needs, so the most that a runtime has to keep."""
        return max(len(row) for row in self)
