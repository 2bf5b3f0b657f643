"""Following: a fixed policy rolled out on a prompt set, from its coefficients alone."""

from __future__ import annotations

from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import LinearForm
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.runtimes.sampling.trunk import combine
from budc.schema.policy import Policy


def rollout_policy(network: BatchedDenoiser, form: LinearForm, policy: Policy) -> Tensor:
    """Return the final latents (N, ...) of a policy, through the step machine that deployment uses."""
    first_steps = network.denoiser.first_steps(form.timesteps)
    machine: StepMachine[Tensor] = StepMachine(policy, combine, first_steps)
    noise, velocities = network.conditions.noise, list[Tensor]()
    for step, timestep in enumerate(form.timesteps.float()):
        latents = form.latents(step, noise, velocities)
        velocities.append(_velocity(network, machine, policy, step, latents, timestep))
    return form.latents(form.steps, noise, velocities)


def _velocity(
    network: BatchedDenoiser,
    machine: StepMachine[Tensor],
    policy: Policy,
    step: int,
    latents: Tensor,
    timestep: Tensor,
) -> Tensor:
    found = {}
    for branch in network.denoiser.branches:
        action = machine.step(branch, step)
        if isinstance(action, Compute):
            found[branch], residual = network.compute(branch, latents, timestep)
            machine.record(branch, found[branch] if policy.payload == "velocity" else residual)
        elif policy.payload == "velocity":
            found[branch] = action.cached
        else:
            found[branch] = network.reuse(branch, action.cached, latents, timestep)
    return network.denoiser.guide(found, timestep)
