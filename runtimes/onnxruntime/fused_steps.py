"""Fused steps: the steps from one forward to the next as one matrix, which is known before the run.

Guidance, predictor and solver are linear. If a policy reuses velocities, everything up to the next forward follows
from the solver's state and the cached velocities at the last forward:

    state_{k+m} = M_{k+m-1} ··· M_k [state_k, velocities]

The steps from one forward to the next are called an interval here. If a policy reuses trunk residuals, every step
runs a graph of the denoiser, so each interval is one step. So it is where guidance is not linear.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.onnxruntime.branches import BranchGroup, ring_buffer
from budc.runtimes.sampling.solvers import Matrices
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.schema.policy import Policy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FusedSteps:
    """The intervals of a run, and the matrix of every step."""

    ends: Mapping[int, int]
    """First step of each interval → its last step, ascending."""
    matrices: Floats
    """(steps, R, R + V): from the R rows of the state where the interval starts, and the V velocities (slots ·
    branches), to the state after each step. With `branches` it is (steps, R, R + 1), from the guided velocity."""
    guidance: Floats | None = None
    """(steps, G), where the guided velocity is scaled to the norm of the conditional one: the weight of each branch."""
    branches: Floats | None = None
    """(steps, G, V), with `guidance`: from the V velocities to that of each branch."""

    @property
    def velocities(self) -> int:
        """The number V of velocities."""
        _, rows, columns = self.matrices.shape
        return columns - rows if self.branches is None else int(self.branches.shape[2])


def unfused_steps(solver: Matrices, guidance: Sequence[Sequence[float]]) -> FusedSteps:
    """Return intervals of one step each, with one slot for the velocity of every branch.

    `guidance` is for each step the weight of each branch's velocity.
    """
    steps, weights = len(solver), np.asarray(guidance)
    return FusedSteps({step: step for step in range(steps)}, _products(solver, weights, range(steps)))


def fuse_steps(
    solver: Matrices,
    policy: Policy,
    groups: Sequence[BranchGroup],
    guidance: Sequence[Sequence[float]],
    first_steps: Collection[int] = (),
) -> FusedSteps:
    """Return the intervals of a policy that reuses velocities; one starts wherever a branch is computed.

    `groups` are those of `group_branches`, `guidance` is for each step the weight of each branch's velocity,
    `first_steps` are those of the denoisers after the first.
    """
    steps = len(solver)
    slots = max(ring_buffer(policy, group.name, first_steps).slots for group in groups)
    weights, starts = np.zeros((steps, slots, len(guidance[0]))), set[int]()
    for group in groups:
        used = _slot_weights(policy, group.name, slots, first_steps)
        for step, (computed, slot_weights) in enumerate(used):
            weights[step, :, group.first : group.last] = slot_weights[:, None]
            starts.update([step] * computed)
    weights *= np.asarray(guidance)[:, None]
    firsts = sorted(starts)
    ends = dict(zip(firsts, [first - 1 for first in [*firsts[1:], steps]], strict=True))
    return FusedSteps(ends, _products(solver, weights.reshape(steps, -1), starts))


def rescaled_steps(
    solver: Matrices,
    policy: Policy,
    groups: Sequence[BranchGroup],
    guidance: Sequence[Sequence[float]],
) -> FusedSteps:
    """Return intervals of one step each, where the guided velocity is scaled to the norm of the conditional one.

    The arguments are those of `fuse_steps`; `policy` may reuse either payload.
    """
    steps, branches = len(solver), len(guidance[0])
    reuses = policy.payload == "velocity"
    slots = max(ring_buffer(policy, group.name).slots for group in groups) if reuses else 1
    weights = np.zeros((steps, branches, slots, branches))
    for group in groups:
        used = _slot_weights(policy, group.name, slots, ()) if reuses else ((True, np.ones(1)),) * steps
        for step, (_, slot_weights) in enumerate(used):
            for branch in range(group.first, group.last):
                weights[step, branch, :, branch] = slot_weights
    return FusedSteps(
        {step: step for step in range(steps)},
        solver,
        np.asarray(guidance, np.float64),
        weights.reshape(steps, branches, -1),
    )


def _slot_weights(
    policy: Policy, name: str, slots: int, first_steps: Collection[int]
) -> Iterator[tuple[bool, Floats]]:
    """Yield for every step whether it is computed, and the weight of each slot in the velocity that it uses."""
    machine: StepMachine[Floats] = StepMachine(
        policy,
        lambda row, cached: np.sum([c * v for c, v in zip(row, cached, strict=True)], axis=0),
        first_steps,
    )
    for step, slot in enumerate(ring_buffer(policy, name, first_steps).slot_at):
        action = machine.step(name, step)
        if isinstance(action, Compute):
            machine.record(name, np.eye(slots)[slot])
            yield True, np.eye(slots)[slot]
        else:
            yield False, action.cached


def _products(solver: Matrices, weights: Floats, starts: Collection[int]) -> Floats:
    """Return `FusedSteps.matrices` for the (steps, V) weights of the velocities and the steps that start intervals."""
    rows, matrices = solver.shape[1], []
    for step, (solver_matrix, step_weights) in enumerate(zip(solver, weights, strict=True)):
        if step in starts:
            state = np.eye(rows, rows + weights.shape[1])
        velocity = np.concatenate([np.zeros(rows), step_weights])
        state = solver_matrix @ np.concatenate([state, velocity[None]])
        matrices.append(state)
    return np.stack(matrices)
