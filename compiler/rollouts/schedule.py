"""Noise schedules: at which noise levels a scheduler samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from budc.compiler.rollouts.linear_form import LinearForm, linear_form
from budc.runtimes.sampling.schedulers import terminal_sigma


@dataclass(frozen=True)
class NoiseSchedule:
    """A scheduler on its noise levels (steps + 1, terminal value included) and the timesteps (steps) that go with them.

    Two schedules are equal where their numbers are.
    """

    scheduler: Any = field(compare=False, repr=False)
    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @classmethod
    def of(cls, scheduler: Any, sigmas: Sequence[float], timesteps: Sequence[float]) -> NoiseSchedule:
        """Return the schedule of these numbers, whatever sequences hold them."""
        return cls(scheduler, tuple(sigmas), tuple(timesteps))

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)

    @property
    def step_sizes(self) -> tuple[float, ...]:
        """By how much each step changes sigma."""
        return tuple(abs(before - after) for before, after in pairwise(self.sigmas))

    def linear_form(self) -> LinearForm:
        """Return the scheduler's linear form on this schedule. Raises UnsupportedModel, see `linear_form`."""
        return linear_form(self.scheduler, self.sigmas, self.timesteps)

    def default_terminal(self) -> float:
        """Return the sigma at which the scheduler's own schedule of as many steps ends."""
        return terminal_sigma(self.scheduler, self.steps)

    def resampled(self, steps: int) -> NoiseSchedule:
        """Return a schedule of fewer steps along the same curve, linear between its points."""

        def at(values: Sequence[float], count: int) -> tuple[float, ...]:
            positions = [self.steps * index / steps for index in range(count)]
            return tuple(
                values[int(position)]
                + (position - int(position))
                * (values[min(int(position) + 1, len(values) - 1)] - values[int(position)])
                for position in positions
            )

        timesteps = at((*self.timesteps, 0.0), steps + 1)[:-1]
        return NoiseSchedule(self.scheduler, at(self.sigmas, steps + 1), timesteps)
