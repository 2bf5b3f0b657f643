"""What a method found: a policy, or a rule that decides during a rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.rollouts.policies import shared_policy
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


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A fitted method: either `policy`, which is the same for all samples, or `rule`.

    `forwards` are the transformer forwards that fitting took, the full run included where it was used; `unshared` those
    that candidates without shared beginnings would take; `chosen` says what was found.
    """

    policy: Policy | None = None
    rule: ThresholdRule | None = None
    forwards: int = 0
    unshared: int | None = None
    chosen: Mapping[str, Any] = {}

    def check_experts(self, sampler: SamplerBinding) -> None:
        """Refuse a policy that reuses where another denoiser takes over. Raises CannotRun."""
        branches = () if self.policy is None else self.policy.branches
        for expert in sampler.experts:
            if not all(branch.mask[expert.first_step] for branch in branches):
                raise CannotRun(
                    f"reuses step {expert.first_step}, where {expert.denoiser} takes over and has nothing to reuse"
                )


def plain(steps: int, computed: Sequence[int], branches: tuple[str, ...]) -> Policy:
    """Return the policy that computes these of so many steps and reuses the newest residual."""
    mask = StepMask.from_compute_steps(steps, computed)
    return shared_policy(mask, Predictor.plain_reuse(mask), branches)
