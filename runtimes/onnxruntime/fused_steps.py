"""Stretches: the steps from one forward up to the next, as one matrix that is known before the run.

Guidance, predictor and solver are linear. Of a policy that reuses velocities, all that happens between two forwards
follows from what is known at the first, the solver's state and the velocities that are kept:

    state_{k+m} = M_{k+m-1} ··· M_k [state_k, velocities]

Where residuals of the trunk are reused, the ends of the network run in every step, and a stretch is one step.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.onnxruntime.branches import BranchRows, slots_of
from budc.runtimes.sampling.solvers import Matrices
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.schema.policy import Policy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FusedSteps:
    """Where the stretches of a run begin and end, and what each step of them makes of what was known at its begin."""

    ends: Mapping[int, int]
    """The last step of the stretch that begins at each key, ascending."""
    matrices: Floats
    """(steps, R, R + columns): from the state at the begin of its stretch and the velocities to the state after each
    step; `columns` are slots · branches."""


def separate_steps(solver: Matrices, guidance: Sequence[float]) -> FusedSteps:
    """Return stretches of one step each, for a velocity of every branch in one slot."""
    steps = len(solver)
    columns = np.tile(np.asarray(guidance), (steps, 1))
    return FusedSteps({step: step for step in range(steps)}, _products(solver, columns, range(steps)))


def fuse_steps(
    solver: Matrices, policy: Policy, groups: Sequence[BranchRows], guidance: Sequence[float]
) -> FusedSteps:
    """Return the stretches of a policy that reuses velocities; each begins where a branch computes.

    `groups` are branches that run together (`grouped`), `guidance` is the weight of each branch's velocity.
    """
    steps, slots = len(solver), max(slots_of(policy, group.name).count for group in groups)
    columns, begins = np.zeros((steps, slots, len(guidance))), set[int]()
    for group in groups:
        for step, (computed, used) in enumerate(_used(policy, group.name, slots)):
            columns[step, :, group.first : group.last] = used[:, None]
            begins.update([step] * computed)
    columns *= np.asarray(guidance)
    firsts = sorted(begins)
    ends = dict(zip(firsts, [first - 1 for first in [*firsts[1:], steps]], strict=True))
    return FusedSteps(ends, _products(solver, columns.reshape(steps, -1), begins))


def _used(policy: Policy, name: str, slots: int) -> Iterator[tuple[bool, Floats]]:
    """Yield for every step whether it is computed, and what each slot's velocity counts in the one that is used."""
    machine: StepMachine[Floats] = StepMachine(
        policy, lambda row, known: np.sum([c * k for c, k in zip(row, known, strict=True)], axis=0)
    )
    for step, slot in enumerate(slots_of(policy, name).filled):
        action = machine.step(name, step)
        if isinstance(action, Compute):
            machine.record(name, np.eye(slots)[slot])
            yield True, np.eye(slots)[slot]
        else:
            yield False, action.cached


def _products(solver: Matrices, columns: Floats, begins: Collection[int]) -> Floats:
    remembered, made = solver.shape[1], []
    for step, (matrix, used) in enumerate(zip(solver, columns, strict=True)):
        if step in begins:
            state = np.eye(remembered, remembered + columns.shape[1])
        velocity = np.concatenate([np.zeros(remembered), used])
        state = matrix @ np.concatenate([state, velocity[None]])
        made.append(state)
    return np.stack(made)
