"""Directions: ways to move a policy's coefficients, one for each term of each run of reused steps.

A run is the reused steps between two computed ones. Where velocities are reused and the solver is Euler's, only the sum
of their rows matters, and with other solvers nearly so, so all rows of a run move alike. They move in differences of
what is cached, r_0, r_0 - r_1, r_0 - 2 r_1 + r_2 (`budc.compiler.fitting.trajectory`). Guidance branches with the same
run move together: separately, there are twice as many directions, and their moves fit the prompts that they were
measured on (docs/adr/0021-refinement.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from budc.compiler.fitting.trajectory import bounded, from_differences
from budc.schema.policy import Policy


class Direction(NamedTuple):
    """A move of term `term`, in differences, of the rows from step `first` to `last` of some branches."""

    first: int
    last: int
    branches: tuple[str, ...]
    term: int


def directions(policy: Policy, branches: Sequence[str]) -> list[Direction]:
    """Return the directions of a policy's coefficients, those of earlier steps first."""
    found: dict[tuple[int, int, int], list[str]] = {}
    for branch in branches:
        rows = policy.for_branch(branch).predictor
        for first, last in _runs(policy.for_branch(branch).mask):
            for term in range(min(len(row) for row in rows[first : last + 1])):
                found.setdefault((first, last, term), []).append(branch)
    return [
        Direction(first, last, tuple(names), term) for (first, last, term), names in sorted(found.items())
    ]


def moved(policy: Policy, branches: Sequence[str], moves: Sequence[tuple[Direction, float]]) -> Policy:
    """Return the policy after moves along directions, coefficients within their bounds."""
    rows = {branch: [tuple(row) for row in policy.for_branch(branch).predictor] for branch in branches}
    for direction, size in moves:
        for branch in direction.branches:
            for step in range(direction.first, direction.last + 1):
                row = rows[branch][step]
                term = torch.zeros(len(row), dtype=torch.float64)
                term[direction.term] = size
                change = from_differences(term).tolist()
                rows[branch][step] = tuple(bounded(old + new) for old, new in zip(row, change, strict=True))
    return Policy.of(policy.payload, rows)


def _runs(mask: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the first and the last step of every run of reused steps."""
    starts = [step for step, computed in enumerate(mask) if not computed and (step == 0 or mask[step - 1])]
    ends = [
        step
        for step, computed in enumerate(mask)
        if not computed and (step + 1 == len(mask) or mask[step + 1])
    ]
    return list(zip(starts, ends, strict=True))
