"""Watching: what is seen of a run, and a step machine that writes down what it is asked and told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.sampling.steps import BATCHED_BRANCHES, Compute, StepMachine

Array = NDArray[Any]


@dataclass(frozen=True)
class Event:
    """One step of one branch, as the runtime's step machine was asked and answered."""

    branch: str
    step: int
    action: str
    """"C", or how many residuals were combined."""
    residual: Array
    """What the blocks added, or what was added in their place; (B, tokens, channels)."""


@dataclass
class Seen:
    """What was seen during a run; a run that raised leaves it partly filled."""

    events: list[Event] = field(default_factory=list)
    velocities: list[dict[str, Array]] = field(default_factory=list)
    """After each step, the velocity of each branch (B, ...)."""
    noise: Array | None = None
    latents: Array | None = None
    evaluations: int = 0
    """Samples that went through the blocks, counted where the blocks run and not by the machine."""
    held: int = 0
    """Residuals that the machine still held afterwards."""


def watch(machine: StepMachine[Any], read: Callable[[Any], Array], seen: Seen) -> Callable[[], None]:
    """Write down what a step machine is asked and told, until the function that is returned is called.

    `read` turns one of the machine's residuals into an array. Batched branches are written down one by one.
    """
    step, record = machine.step, machine.record
    at: dict[str, int] = {}

    def note(name: str, action: str, residual: Any) -> None:
        parts = BATCHED_BRANCHES.get(name, (name,))
        for part, rows in zip(parts, np.split(read(residual), len(parts)), strict=True):
            seen.events.append(Event(part, at[name], action, rows.copy()))

    def watched_step(name: str, index: int) -> Any:
        action = step(name, index)
        at[name] = index
        if not isinstance(action, Compute):
            plan = machine._plan(name)
            note(name, str(len(plan[index].coefficients)), action.cached)
        return action

    def watched_record(name: str, residual: Any) -> None:
        record(name, residual)
        note(name, "C", residual)

    vars(machine).update(step=watched_step, record=watched_record)

    def stop() -> None:
        del vars(machine)["step"], vars(machine)["record"]

    return stop


def combined(events: Sequence[Event], branch: str, row: Sequence[float], step: int) -> Array:
    """Return Σ_i row[i] · r_i over the residuals that a branch computed before `step`, newest first."""
    known = [e.residual for e in events if e.branch == branch and e.action == "C" and e.step < step]
    newest = known[::-1][: len(row)]
    total: Array = np.sum([c * r.astype(np.float64) for c, r in zip(row, newest, strict=True)], axis=0)
    return total
