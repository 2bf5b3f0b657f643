"""The solver as a linear form: every sampler budc compiles for is linear in noise and velocities.

    x_k = start[k] · x_0 + Σ_{j<k} velocity[k, j] · v_j          k = 0 … steps

v_j is the guided velocity of step j, x_0 the initial latents. Euler, UniPC, DPM++ and Adams-Bashforth differ
only in the numbers, which depend on the sigmas alone; they are read off the scheduler itself, by stepping it
through unit vectors, so that nothing here can disagree with the solver that deployment runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from budc.runtimes.sampling.schedulers import on_schedule
from budc.schema.errors import UnsupportedModel

_TINY = 1e-6
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class LinearForm:
    """A solver on one schedule: `start` (steps + 1,), `velocity` (steps + 1, steps), `timesteps` (steps,); float64."""

    start: Tensor
    velocity: Tensor
    timesteps: Tensor

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)

    def without(self, step: int, noise: Tensor, velocities: Sequence[Tensor]) -> Tensor:
        """Return the part of x_step that the given velocities and the noise (N, ...) decide."""
        latents = noise * self.start[step].to(noise.dtype)
        for weight, velocity in zip(self.velocity[step].to(noise.dtype), velocities, strict=False):
            latents = latents + weight * velocity
        return latents

    def latents(self, step: int, noise: Tensor, velocities: Sequence[Tensor]) -> Tensor:
        """Return x_step (N, ...) from the velocities of the steps before it."""
        if step == 0:
            return noise
        return self.without(step, noise, velocities[:step])


def linear_form(
    scheduler: Any, sigmas: Sequence[float] | Tensor, timesteps: Sequence[float] | Tensor
) -> LinearForm:
    """Read a scheduler's linear form on a schedule (`steps + 1` sigmas, `steps` timesteps); it is left untouched.

    Where `sigmas` is a tensor that requires gradients, so does the form. Its terminal 0 is then taken as 1e-6:
    solvers in log-SNR have a finite value there, but no finite derivative.

    Raises:
        UnsupportedModel: the scheduler is not linear (thresholding), or draws noise of its own.
    """
    if getattr(scheduler, "config", {}).get("thresholding"):
        raise _refused(scheduler)
    wanted = isinstance(sigmas, Tensor) and sigmas.requires_grad
    schedule = torch.as_tensor(sigmas, dtype=torch.float64)
    if wanted:
        schedule = torch.cat([schedule[:-1], schedule[-1:].clamp_min(_TINY)])
    times = torch.as_tensor(timesteps, dtype=torch.float64)
    steps = len(times)
    basis = torch.eye(steps + 1, dtype=torch.float64)
    rows = _walk(scheduler, schedule, times, basis)
    if not wanted:
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(steps + 1, 1, generator=generator, dtype=torch.float64)
        if not torch.allclose(rows @ probe, _walk(scheduler, schedule, times, probe), atol=_TOLERANCE):
            raise _refused(scheduler)
    return LinearForm(rows[:, 0], rows[:, 1:], times)


def trainable(scheduler: Any, sigmas: Tensor) -> Tensor:
    """Return a schedule (steps + 1,) at which the solver has derivatives.

    The log-SNR of pure noise is infinite, so a solver in log-SNR begins 1e-6 below a sigma of 1, as the library's own
    schedules do.
    """
    if not hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return sigmas
    return torch.cat([sigmas[:1].clamp_max(1 - _TINY), sigmas[1:]])


def _refused(scheduler: Any) -> UnsupportedModel:
    return UnsupportedModel(
        f"{type(scheduler).__name__} is not linear in its velocities, or is random",
        remedy="use flow-matching Euler, UniPC or DPM++ without thresholding",
    )


def _walk(scheduler: Any, sigmas: Tensor, timesteps: Tensor, inputs: Tensor) -> Tensor:
    # inputs (steps + 1, width): the noise, then each velocity. Returns all states (steps + 1, width).
    stepper = on_schedule(scheduler, sigmas.detach().tolist(), timesteps.detach().tolist())
    stepper.sigmas = sigmas
    states = [inputs[0:1]]
    for step, timestep in enumerate(stepper.timesteps):
        state = stepper.step(inputs[step + 1 : step + 2], timestep, states[-1], return_dict=False)[0]
        states.append(state.double())
    return torch.cat(states)
