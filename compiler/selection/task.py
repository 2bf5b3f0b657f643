"""Task and outcome: what a compile is asked for, on tensors alone, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.search import algorithm
from budc.policies.profile import AnnealingSettings
from budc.schema.errors import UsageError
from budc.schema.policy import Policy

SEARCH_SHARE = 0.75
"""Share of the calibration prompts that the search sees; finalists are arbitrated on the others."""


class NoiseSchedule(msgspec.Struct, frozen=True):
    """Noise levels (steps + 1, terminal value included) and the timesteps (steps) that the network is given."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)


@dataclass(frozen=True)
class Task:
    """What is to be found. `short` is the schedule of as many steps as the budget, where that may win too."""

    denoiser: Denoiser
    scheduler: Any
    schedule: NoiseSchedule
    conditions: Conditioning
    nfe: int
    annealing: AnnealingSettings
    search: str = "joint"
    seed: int = 0
    align: bool = False
    separate: bool = False
    published_masks: tuple[tuple[int, ...], ...] = ()
    few_step_schedule: NoiseSchedule | None = None
    batch: int | None = None


@dataclass(frozen=True)
class SearchResult:
    """What was found: the policy on its schedule, the loss on the search prompts, and what it cost.

    `notes` say in words which choices were made on prompts that the search had not seen; `forwards` are forward
    equivalents, the full runs included, a backward counted as two.
    """

    policy: Policy
    schedule: NoiseSchedule
    loss: float
    candidates: int
    forwards: int
    aligned: bool
    notes: tuple[str, ...]


def searched_on(search: str, prompts: int, *, judged: bool) -> int:
    """Return how many of the calibration prompts a search sees; the others arbitrate.

    Raises:
        UsageError: an alignment or a number of steps is to be `judged`, and no prompt is left to do it.
    """
    arbitrated = algorithm(search).arbitrated
    seen = max(1, round(SEARCH_SHARE * prompts)) if arbitrated and prompts > 1 else prompts
    if seen == prompts and arbitrated and judged:
        raise UsageError(
            f"{prompts} calibration prompts leave none to arbiter an alignment or a number of steps by",
            remedy="give at least three; two dozen is a good number",
        )
    return seen


def resampled(schedule: NoiseSchedule, steps: int) -> NoiseSchedule:
    """Return a schedule of fewer steps along the same curve: sigma by place, linear between its points."""

    def at(values: Sequence[float], count: int, last: float) -> tuple[float, ...]:
        places = [last * index / steps for index in range(count)]
        return tuple(
            values[int(place)]
            + (place - int(place)) * (values[min(int(place) + 1, len(values) - 1)] - values[int(place)])
            for place in places
        )

    ends = (*schedule.timesteps, 0.0)
    sigmas = at(schedule.sigmas, steps + 1, schedule.steps)
    return NoiseSchedule(sigmas, at(ends, steps + 1, schedule.steps)[:-1])
