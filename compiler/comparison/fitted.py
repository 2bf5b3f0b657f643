"""What a method found: a policy, or what no policy can say: a rule, a solver of few steps, average velocities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import torch
from torch import Tensor

from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.policies import shared_policy
from budc.runtimes.sampling.step_plan import plan_branch
from budc.schema.errors import SemanticsViolation
from budc.schema.mask import StepMask
from budc.schema.policy import Policy, SamplerBinding
from budc.schema.predictor import Predictor


class ThresholdRule(msgspec.Struct, frozen=True, kw_only=True):
    """TeaCache's rule: compute where the accumulated change of the modulated input reaches `threshold`."""

    signal: str
    """"input" or "embedding"."""
    polynomial: Sequence[float]
    """From the change of the signal to the change of the output, highest power first."""
    threshold: float


class AverageVelocities(msgspec.Struct, frozen=True, kw_only=True):
    """MeanCache's rule: each step in `spans` is forecast from the average velocity of that many steps before it."""

    spans: Mapping[int, int]


class ProbeRule(msgspec.Struct, frozen=True, kw_only=True):
    """DiCache's rule: compute where the accumulated change after the first `depth` blocks reaches `threshold`."""

    depth: int
    threshold: float
    largest_step: float
    """The bound of its extrapolation."""


class LearnedSolver(msgspec.Struct, frozen=True, kw_only=True):
    """A solver that no scheduler has: its sigmas (steps + 1), and its `LinearForm` in plain numbers."""

    sigmas: Sequence[float]
    timesteps: Sequence[float]
    start: Sequence[float]
    velocity: Sequence[Sequence[float]]

    @classmethod
    def of(cls, form: LinearForm, sigmas: Tensor) -> LearnedSolver:
        """Return it as plain numbers."""
        return cls(
            sigmas=sigmas.tolist(),
            timesteps=form.timesteps.tolist(),
            start=form.start.tolist(),
            velocity=form.velocity.tolist(),
        )

    def form(self) -> LinearForm:
        """Return the linear form, float64."""
        start, velocity, timesteps = (
            torch.tensor(values, dtype=torch.float64)
            for values in (self.start, self.velocity, self.timesteps)
        )
        return LinearForm(start, velocity, timesteps)


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted method: `policy`, which is the same for all samples, or one of `rule`, `probe`, `solver` and
    `averages`.

    `forwards` are the transformer forwards that fitting took, the full run included where it was used; `unshared` those
    that candidates without shared beginnings would take; `chosen` says what was found.
    """

    policy: Policy | None = None
    sigmas: Sequence[float] | None = None
    """Of a policy with a schedule of its own (steps + 1), and `timesteps` (steps); None: the sampler's."""
    timesteps: Sequence[float] | None = None
    rule: ThresholdRule | None = None
    probe: ProbeRule | None = None
    solver: LearnedSolver | None = None
    averages: AverageVelocities | None = None
    forwards: int = 0
    unshared: int | None = None
    chosen: Mapping[str, Any] = {}

    def check_experts(self, sampler: SamplerBinding) -> None:
        """Refuse a policy that combines what another denoiser computed, or has nothing to reuse. Raises CannotRun."""
        branches = () if self.policy is None else self.policy.branches
        for branch in branches:
            try:
                plan_branch(branch.mask, branch.predictor, sampler.first_steps)
            except SemanticsViolation as error:
                raise CannotRun(str(error)) from error


def plain(steps: int, computed: Sequence[int], branches: tuple[str, ...]) -> Policy:
    """Return the policy that computes these of so many steps and reuses the newest residual."""
    mask = StepMask.from_compute_steps(steps, computed)
    return shared_policy(mask, Predictor.plain_reuse(mask), branches)
