"""Policy rollout: a fixed policy on a prompt set, from its coefficients alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.step import CurrentStep, Trajectory, take_step
from budc.runtimes.sampling.steps import Compute, Reuse, StepMachine
from budc.runtimes.sampling.trunk import combine
from budc.schema.policy import Policy


class PolicyTrajectory(Trajectory):
    """A rollout under a policy, which the step machine of deployment decides.

    Raises:
        SemanticsViolation: the policy asks for cached tensors that its denoiser has not computed.
    """

    def __init__(self, denoiser: BatchedDenoiser, form: LinearForm, policy: Policy) -> None:
        super().__init__(form, denoiser.conditions.noise, policy.payload)
        first_steps = denoiser.denoiser.first_steps(form.timesteps)
        self._machine: StepMachine[Tensor] = StepMachine(policy, combine, first_steps)
        self._branches = denoiser.branches
        self._actions: dict[str, Compute | Reuse[Tensor]] = {}

    def computing(self) -> Collection[str]:
        """Ask the step machine."""
        self._actions = {branch: self._machine.step(branch, self.step) for branch in self._branches}
        return [branch for branch, action in self._actions.items() if isinstance(action, Compute)]

    def cache(self, branch: str, cached: Tensor) -> None:
        """Hand it to the step machine."""
        self._machine.record(branch, cached)

    def reused(self, current: CurrentStep) -> Mapping[str, Tensor]:
        """Return what the step machine has combined."""
        return {
            branch: action.cached for branch, action in self._actions.items() if isinstance(action, Reuse)
        }


def rollout_policy(denoiser: BatchedDenoiser, form: LinearForm, policy: Policy) -> Tensor:
    """Return the final latents (N, ...) of a policy, through the step machine that deployment uses.

    Raises:
        SemanticsViolation: see `PolicyTrajectory`.
        DeviceMemory: one sample does not fit into the memory of the device.
    """
    trajectory = PolicyTrajectory(denoiser, form, policy)
    for _ in range(form.steps):
        take_step(denoiser, [trajectory])
    return trajectory.latents
