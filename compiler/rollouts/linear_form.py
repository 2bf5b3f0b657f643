"""The solver as a linear form: every sampler that budc compiles for is linear in the noise and the velocities.

    x_k = start[k] · x_0 + Σ_{j<k} velocity[k, j] · v_j          k = 0 … steps

v_j is the guided velocity of step j, x_0 the noise. Euler, UniPC, DPM++ and Adams-Bashforth differ only in the
coefficients, which depend on the sigmas alone. They are read off the scheduler itself, by stepping it through unit
vectors, so they cannot disagree with the solver that deployment runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from budc.compiler.rollouts.solver_checks import cannot_run, check_settings, check_states
from budc.runtimes.sampling.schedulers import on_schedule

_TINY = 1e-6


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

    def partial_latents(self, step: int, noise: Tensor, velocities: Sequence[Tensor]) -> Tensor:
        """Return x_step as it would be if every velocity after the given ones were zero; noise (N, ...)."""
        latents = noise * self.start[step].to(noise.dtype)
        for weight, velocity in zip(self.velocity[step].to(noise.dtype), velocities, strict=False):
            latents = latents + weight * velocity
        return latents

    def latents(self, step: int, noise: Tensor, velocities: Sequence[Tensor]) -> Tensor:
        """Return x_step (N, ...) from the velocities of the steps before it."""
        if step == 0:
            return noise
        return self.partial_latents(step, noise, velocities[:step])


def linear_form(
    scheduler: Any, sigmas: Sequence[float] | Tensor, timesteps: Sequence[float] | Tensor
) -> LinearForm:
    """Return a scheduler's linear form on a schedule of `steps + 1` sigmas and `steps` timesteps.

    The scheduler itself is not changed. Where `sigmas` is a tensor that requires gradients, so does the form. The
    terminal 0 is then taken as 1e-6: solvers in log-SNR have a finite value there, but no finite derivative.

    Raises:
        UnsupportedModel: the scheduler has no linear form for flow matching, see `solver_checks`.
    """
    check_settings(scheduler)
    differentiable = isinstance(sigmas, Tensor) and sigmas.requires_grad
    schedule = torch.as_tensor(sigmas, dtype=torch.float64)
    if differentiable:
        schedule = torch.cat([schedule[:-1], schedule[-1:].clamp_min(_TINY)])
    times = torch.as_tensor(timesteps, dtype=torch.float64)

    def run(levels: Tensor, inputs: Tensor) -> Tensor:
        try:
            return _states(scheduler, levels, times, inputs)
        except Exception as error:
            raise cannot_run(scheduler, error) from error

    states = run(schedule, torch.eye(len(times) + 1, dtype=torch.float64))
    if not differentiable:
        check_states(scheduler, run, schedule, states)
    return LinearForm(states[:, 0], states[:, 1:], times)


def trainable(scheduler: Any, sigmas: Tensor) -> Tensor:
    """Return a schedule (steps + 1,) at which the solver has derivatives.

    The log-SNR of pure noise is infinite, so for a solver in log-SNR the first sigma is at most 1 - 1e-6, as in the
    schedules of diffusers.
    """
    if not hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return sigmas
    return torch.cat([sigmas[:1].clamp_max(1 - _TINY), sigmas[1:]])


def _states(scheduler: Any, sigmas: Tensor, timesteps: Tensor, inputs: Tensor) -> Tensor:
    # All states (steps + 1, width) of a run from inputs (steps + 1, width): the noise, then every velocity.
    stepper = on_schedule(scheduler, sigmas.detach().tolist(), timesteps.detach().tolist())
    stepper.sigmas = sigmas
    states = [inputs[0:1]]
    for step, timestep in enumerate(stepper.timesteps):
        state = stepper.step(inputs[step + 1 : step + 2], timestep, states[-1], return_dict=False)[0]
        states.append(state.double())
    return torch.cat(states)
