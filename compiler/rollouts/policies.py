"""Policies that need no search, and the forwards of a policy."""

from __future__ import annotations

from budc.schema.mask import StepMask
from budc.schema.policy import Policy
from budc.schema.predictor import Predictor


def shared_policy(mask: StepMask, predictor: Predictor, branches: tuple[str, ...]) -> Policy:
    """Return the policy that all guidance branches follow together."""
    return Policy.of("trunk-residual", dict.fromkeys(branches, predictor))


def full_policy(steps: int, branches: tuple[str, ...]) -> Policy:
    """Return the policy that computes every step."""
    mask = StepMask.of([True] * steps)
    return shared_policy(mask, Predictor.plain_reuse(mask), branches)


def forwards_per_sample(policy: Policy) -> int:
    """Return the transformer forwards of one sample under a policy, all branches together."""
    return sum(sum(branch.mask) * len(branch.names) for branch in policy.branches)
