"""Guidance branches: which ones run, what each weighs, which of them share a forward, and where they keep what."""

from collections.abc import Sequence
from dataclasses import dataclass

from budc.runtimes.sampling.steps import BATCHED_BRANCHES, PlannedStep, plan_branch
from budc.schema.policy import Policy, PolicyDocument


@dataclass(frozen=True)
class BranchRows:
    """Branches first..last-1 of those that run, which make one forward under this name."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class Slots:
    """The memory of what a group computes, a ring of as many as the policy ever keeps.

    A forward writes over the oldest, which no step after it needs.
    """

    count: int
    filled: tuple[int, ...]
    """The slot that each step fills, if it is computed."""


def guided_branches(document: PolicyDocument, branches: Sequence[str]) -> dict[str, float]:
    """Return the branches that run and the weight of each one's velocity in the guided one.

    Classifier-free guidance is uncond + g (cond - uncond); at g of 1 or less a pipeline leaves it out.
    """
    sampler = document.sampler
    if sampler.guidance_rule != "classifier-free" or sampler.guidance <= 1:
        return {branches[0]: 1.0}
    return {"cond": float(sampler.guidance), "uncond": 1.0 - float(sampler.guidance)}


def grouped(policy: Policy, branches: Sequence[str]) -> list[BranchRows]:
    """Return one group where all branches follow one plan, else one for each."""
    plans = [_plan(policy, name) for name in branches]
    for batched, names in BATCHED_BRANCHES.items():
        if names == tuple(branches) and all(plan == plans[0] for plan in plans):
            return [BranchRows(batched, 0, len(branches))]
    return [BranchRows(name, index, index + 1) for index, name in enumerate(branches)]


def slots_of(policy: Policy, name: str) -> Slots:
    """Return the slots of a group; every run fills the same ones, so calls and CUDA graphs are found again."""
    plan = _plan(policy, BATCHED_BRANCHES.get(name, (name,))[0])
    count = max(1, *(planned.keep for planned in plan))
    computed = [0]
    for planned in plan:
        computed.append(computed[-1] + planned.computed)
    return Slots(count, tuple(before % count for before in computed[:-1]))


def _plan(policy: Policy, name: str) -> tuple[PlannedStep, ...]:
    branch = policy.for_branch(name)
    return plan_branch(branch.mask, branch.predictor)
