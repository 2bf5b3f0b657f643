"""StepMask: at which steps the transformer blocks are computed.

    >>> mask = StepMask.uniform(steps=6, nfe=3)
    >>> mask.strip(), mask.compute_steps, mask.nfe
    ('█·█·█·', (0, 2, 4), 3)

True means compute, False means reuse, everywhere in budc.
"""

from collections.abc import Iterable
from typing import Self

from budc.schema.errors import SemanticsViolation

MAX_STEPS = 1000


class StepMask(tuple[bool, ...]):
    """One bool per step, True = compute. The first step is always computed.

    A StepMask is a validated tuple: it compares, hashes and pickles as a tuple of bool does.

    Raises:
        SemanticsViolation: empty, longer than `MAX_STEPS`, an entry that is not a bool, or step 0 reused.
    """

    __slots__ = ()

    def __new__(cls, values: Iterable[bool]) -> Self:
        """Validate `values` and wrap them."""
        self = super().__new__(cls, values)
        if not 1 <= len(self) <= MAX_STEPS:
            raise SemanticsViolation(f"mask has {len(self)} steps, expected 1 to {MAX_STEPS}")
        for step, value in enumerate(self):
            if not isinstance(value, bool):
                raise SemanticsViolation(f"mask[{step}] is {value!r}, expected true or false")
        if not self[0]:
            raise SemanticsViolation("mask[0] is false, but there is nothing to reuse at the first step")
        return self

    @classmethod
    def of(cls, values: Iterable[bool]) -> Self:
        """Return the mask with these entries."""
        return cls(values)

    @classmethod
    def from_compute_steps(cls, steps: int, indices: Iterable[int]) -> Self:
        """Return the mask of `steps` steps that computes exactly the steps named by `indices`.

        Raises:
            SemanticsViolation: an index is repeated or outside 0 to steps - 1, or 0 is missing.
        """
        chosen: set[int] = set()
        for index in indices:
            if not 0 <= index < steps:
                raise SemanticsViolation(f"step {index} is outside a schedule of {steps} steps")
            if index in chosen:
                raise SemanticsViolation(f"step {index} is named twice")
            chosen.add(index)
        return cls(step in chosen for step in range(steps))

    @classmethod
    def uniform(cls, steps: int, nfe: int) -> Self:
        """Return the mask that computes the steps round(i * steps / nfe) for i = 0 … nfe - 1.

        Halves round to even, as Python's `round` does.

        Raises:
            SemanticsViolation: `nfe` is not between 1 and `steps`.
        """
        if not 1 <= nfe <= steps:
            raise SemanticsViolation(f"nfe is {nfe}, expected 1 to {steps} for a schedule of {steps} steps")
        return cls.from_compute_steps(steps, (round(i * steps / nfe) for i in range(nfe)))

    def through(self, steps: Iterable[int]) -> Self:
        """Return a mask of the same NFE that computes `steps`: the nearest other computed steps move there.

        Of two that are equally near, the earlier one moves. The first step never moves.

            >>> StepMask.uniform(steps=8, nfe=3).through([4]).strip()
            '█···██··'

        Raises:
            SemanticsViolation: a step is outside of the schedule, or there are more `steps` than `nfe` allows.
        """
        wanted = {0, *steps}
        chosen = set(self.compute_steps)
        for step in sorted(wanted - chosen):
            movable = chosen - wanted
            if not movable:
                raise SemanticsViolation(
                    f"{self.nfe} computed steps are too few for {', '.join(map(str, sorted(wanted)))}"
                )
            chosen.remove(min(movable, key=lambda other: (abs(other - step), other)))
            chosen.add(step)
        return self.from_compute_steps(self.steps, chosen)

    @property
    def steps(self) -> int:
        """Number of steps, computed and reused."""
        return len(self)

    @property
    def nfe(self) -> int:
        """Number of computed steps (network function evaluations of one guidance branch)."""
        return sum(self)

    @property
    def compute_steps(self) -> tuple[int, ...]:
        """Indices of the computed steps, ascending."""
        return tuple(step for step, compute in enumerate(self) if compute)

    def strip(self) -> str:
        """Return one character per step: █ computed, · reused."""
        return "".join("█" if compute else "·" for compute in self)
