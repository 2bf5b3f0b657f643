"""What a training costs, in forwards; without a framework, so that a plan can count it."""

from __future__ import annotations

from typing import NamedTuple

BACKWARD = 2
"""The forwards that a backward pass counts as."""
RECOMPUTED = 1
"""The forwards that are computed again for a backward pass, as steps are checkpointed."""


class TrainingCost(NamedTuple):
    """A training of so many epochs, on samples of `evaluations` forwards each."""

    evaluations: int
    train: int
    validation: int
    epochs: int

    @property
    def forwards(self) -> int:
        """Its forwards, a backward pass counted as `BACKWARD` of them."""
        epoch = (1 + BACKWARD) * self.train + self.validation
        return self.evaluations * (self.epochs * epoch + self.validation)

    @property
    def recomputed(self) -> int:
        """The forwards that are computed again: part of the time, not of `forwards`."""
        return self.evaluations * self.epochs * RECOMPUTED * self.train

    @property
    def time(self) -> int:
        """How many forwards it takes as long as."""
        return self.forwards + self.recomputed
