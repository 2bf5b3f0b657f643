"""Run a policy on the network that it was made for: all steps at once, or one by one in a loop of one's own.

    latents = budc.run("policy.budc.json", network, conditioning, noise, scheduler, trust="release.pub")

    latents = noise
    for step in budc.steps("policy.budc.json", network, conditioning, noise, scheduler, trust="release.pub"):
        latents = latents + (step.next_sigma - step.sigma) * step.velocity(latents)

`run` goes the same way as the search: its latents are those that the report was measured on, to the last bit, where
batch, threads and device are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

from torch import Tensor, nn

from budc.compiler.api_inputs import Pair
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.network.admission import Admitted, admitted
from budc.compiler.network.compiled import Compiled
from budc.compiler.network.weights import Weights
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.policy import PolicyTrajectory, rollout_policy
from budc.compiler.rollouts.step import take_step
from budc.option_names import python_names
from budc.runtimes.admission.trust import Source
from budc.schema.errors import RefusedRun
from budc.schema.policy import Policy
from budc.schema.trust import Trust


@python_names()
def run(
    policy: Source | Compiled,
    denoiser: nn.Module | Pair | Denoiser,
    conditioning: Mapping[str, Condition],
    noise: Tensor,
    scheduler: Any,
    *,
    weights: Weights | None = None,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    batch: int | None = None,
) -> Tensor:
    """Return the final latents (N, ...) of a policy, float32, on the device of `noise`.

    Args:
        policy: what `compile_policy` returned, or an artifact that it was saved as.
        denoiser: the network, as it was passed to `compile_policy`.
        conditioning, noise: guidance branch -> condition, and initial latents, of N samples.
        scheduler: of the policy's class and settings; the policy sets its schedule.
        weights: what was given to `save`: needed for functions, whose weights cannot be seen.
        trust: whose signature is trusted: a `Trust`, or the path of one public key.
        allow_unsigned: run what nobody signed, with a warning.
        allow_uncalibrated: run on other weights, settings or shapes than calibrated, with a warning.
        batch: the most samples of one forward.

    Raises:
        TrustError: no trusted key has signed the artifact.
        UsageError: an argument of another kind, or a policy for a pipeline.
        WeightsMismatch, CalibrationMismatch: the network or the scheduler is another one.
    """
    given = (denoiser, conditioning, noise, scheduler)
    run = admitted(policy, given, weights, trust, (allow_unsigned, allow_uncalibrated), batch)
    return rollout_policy(run.denoiser, run.form, run.policy).to(noise.device)


class PolicyStep:
    """One step of a run: the network computes or reuses as the policy says, the owner's loop does the rest."""

    def __init__(self, index: int, run: Admitted, trajectory: _LoopTrajectory) -> None:
        self.index = index
        """From 0 on."""
        self.timestep = run.timesteps[index]
        self.sigma, self.next_sigma = run.sigmas[index : index + 2]
        """Noise levels before and after it."""
        self.computed = tuple(
            name for name in run.denoiser.branches if run.policy.for_branch(name).mask[index]
        )
        """The guidance branches that compute; the others reuse."""
        self._run, self._trajectory = run, trajectory

    def velocity(self, latents: Tensor) -> Tensor:
        """Return the guided velocity (N, ...), float32, on the device of `latents` (N, ...). Call it once a step.

        Raises:
            RefusedRun: it was called at another step than the loop is at, or twice.
            CalibrationMismatch: latents of another shape than the noise.
        """
        if self._trajectory.step != self.index:
            raise RefusedRun(
                f"step {self.index}: the velocity of step {self._trajectory.step} is next",
                remedy="ask every step for its velocity, once and in order",
            )
        return self._trajectory.velocity(self._run.denoiser, latents)


class _LoopTrajectory(PolicyTrajectory):
    """A trajectory whose latents come from a loop of the user's own."""

    def __init__(self, denoiser: BatchedDenoiser, form: LinearForm, policy: Policy) -> None:
        super().__init__(denoiser, form, policy)
        self._latents = self.noise

    @property
    def latents(self) -> Tensor:
        """What the loop gave."""
        return self._latents

    def velocity(self, denoiser: BatchedDenoiser, latents: Tensor) -> Tensor:
        if not isinstance(latents, Tensor) or latents.shape != self.noise.shape:
            shape = tuple(getattr(latents, "shape", ()))
            raise RefusedRun(
                f"step {self.step}: latents have shape {shape}, the noise has {tuple(self.noise.shape)}",
                remedy="pass the latents of all samples",
            )
        self._latents = latents.detach().float().cpu()
        take_step(denoiser, [self])
        return self.velocities[-1].to(latents.device)


@python_names()
def steps(
    policy: Source | Compiled,
    denoiser: nn.Module | Pair | Denoiser,
    conditioning: Mapping[str, Condition],
    noise: Tensor,
    scheduler: Any,
    *,
    weights: Weights | None = None,
    trust: Trust | str | PathLike[str] | None = None,
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    batch: int | None = None,
) -> Iterator[PolicyStep]:
    """Return the steps of a run in order, for a loop of one's own that starts from `noise`.

    Arguments and errors are those of `run`. Everything is checked before this returns.

    Raises:
        RefusedRun: when iterated, a step was left without asking for its velocity.
    """
    given = (denoiser, conditioning, noise, scheduler)
    run = admitted(policy, given, weights, trust, (allow_unsigned, allow_uncalibrated), batch)
    return _steps(run)


def _steps(run: Admitted) -> Iterator[PolicyStep]:
    trajectory = _LoopTrajectory(run.denoiser, run.form, run.policy)
    for index in range(run.form.steps):
        yield PolicyStep(index, run, trajectory)
        if trajectory.step == index:
            raise RefusedRun(
                f"step {index}: its velocity was not asked for, and later steps may reuse what it computes",
                remedy="ask every step for its velocity, once and in order",
            )
