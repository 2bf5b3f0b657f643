"""What a training costs, in forwards; without a framework, so that a plan can count it."""

from __future__ import annotations

BACKWARD = 2
"""The forwards that a backward pass counts as."""


RECOMPUTED = 1
"""The forwards that are computed again for a backward pass, as steps are checkpointed."""


def training_forwards(evaluations: int, train: int, validation: int, epochs: int) -> int:
    """Return the forward equivalents of a training on so many samples, each of `evaluations` forwards."""
    return evaluations * (epochs * ((1 + BACKWARD) * train + validation) + validation)


def training_time(evaluations: int, train: int, validation: int, epochs: int) -> int:
    """Return how many forwards a training takes as long as: those of `training_forwards`, and what is recomputed."""
    again = evaluations * epochs * RECOMPUTED * train
    return training_forwards(evaluations, train, validation, epochs) + again
