"""Records of a run: what the tests of a runtime look at, and the recording of a step machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.sampling.steps import BATCHED_BRANCHES, Compute, StepMachine

Array = NDArray[Any]


@dataclass(frozen=True)
class StepRecord:
    """One step of one branch: what the step machine said, and what was cached or reused."""

    branch: str
    step: int
    action: str
    """"C" for compute, else the number of cached tensors that were combined."""
    cached: Array
    """What was computed and cached, or what was reused in its place, with the batch as first axis.

    If the policy reuses trunk residuals: what the blocks add, (B, tokens, channels). If it reuses velocities: the
    velocity, in any shape that is the same at every step.
    """


@dataclass
class RunRecord:
    """What the tests look at after a run. A run that raised leaves it partly filled."""

    steps: list[StepRecord] = field(default_factory=list)
    """In the order in which the step machine was asked; `record_steps` appends to it."""
    velocities: list[dict[str, Array]] = field(default_factory=list)
    """After each step, the velocity of each branch by name, (B, ...) in the shape of the latents."""
    noise: Array | None = None
    """What the run starts from, (B, ...)."""
    latents: Array | None = None
    """The latents after the last step, (B, ...)."""
    evaluations: int = 0
    """Samples that went through the blocks, over all branches, counted where the blocks run."""
    evaluations_of: list[int] = field(default_factory=list)
    """The same for each denoiser; may be left out where there is one."""
    held: int = 0
    """Tensors that the step machine still holds after the run (`StepMachine.held`)."""


@contextmanager
def record_steps(
    machine: StepMachine[Any], to_array: Callable[[Any], Array], record: RunRecord
) -> Iterator[None]:
    """Append to `record.steps` what a step machine is asked and told, for the length of a with-block.

    `to_array` turns a tensor that the machine caches or combines into an array (B, ...). Branches that run in one
    batch are recorded one by one.
    """
    step, cache = machine.step, machine.record
    current_step: dict[str, int] = {}

    def append(name: str, action: str, tensor: Any) -> None:
        branches = BATCHED_BRANCHES.get(name, (name,))
        arrays = np.split(to_array(tensor), len(branches))
        for branch, array in zip(branches, arrays, strict=True):
            record.steps.append(StepRecord(branch, current_step[name], action, array.copy()))

    def recorded_step(name: str, index: int) -> Any:
        action = step(name, index)
        current_step[name] = index
        if not isinstance(action, Compute):
            append(name, str(len(machine._plan(name)[index].coefficients)), action.cached)
        return action

    def recorded_cache(name: str, cached: Any) -> None:
        cache(name, cached)
        append(name, "C", cached)

    vars(machine).update(step=recorded_step, record=recorded_cache)
    try:
        yield
    finally:
        del vars(machine)["step"], vars(machine)["record"]


def predicted(steps: Sequence[StepRecord], branch: str, row: Sequence[float], step: int) -> Array:
    """Return Σ_i row[i] · r_i over what `branch` computed before `step`, newest first."""
    computed = [r.cached for r in steps if r.branch == branch and r.action == "C" and r.step < step]
    newest = computed[::-1][: len(row)]
    total: Array = np.sum([c * r.astype(np.float64) for c, r in zip(row, newest, strict=True)], axis=0)
    return total
