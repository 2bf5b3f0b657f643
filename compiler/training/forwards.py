"""What a training costs, in forwards; without a framework, so that a plan can count it."""

from __future__ import annotations

BACKWARD = 2
"""The forwards that a backward pass counts as."""


def training_forwards(evaluations: int, train: int, validation: int, epochs: int) -> int:
    """Return the forward equivalents of a training on so many samples, each of `evaluations` forwards."""
    return evaluations * (epochs * ((1 + BACKWARD) * train + validation) + validation)
