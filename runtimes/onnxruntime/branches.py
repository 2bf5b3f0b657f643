"""Guidance branches of a run: their weights, which of them share a forward, and how many tensors each caches."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from budc.runtimes.sampling.families import family_named
from budc.runtimes.sampling.step_plan import PlannedStep, plan_branch
from budc.runtimes.sampling.steps import BATCHED_BRANCHES
from budc.schema.policy import Policy, PolicyDocument


@dataclass(frozen=True)
class BranchGroup:
    """The branches first..last-1 of a run, which share one forward. `name` is the step machine's name for them."""

    name: str
    first: int
    last: int


@dataclass(frozen=True)
class RingBuffer:
    """Where a branch group caches what it computes: as many slots as the policy ever needs at once.

    A computed step overwrites the oldest slot, which no later step needs.
    """

    slots: int
    slot_at: tuple[int, ...]
    """For each step, the slot that it fills if it is computed."""


def guided_branches(document: PolicyDocument, branches: Sequence[str]) -> dict[str, float]:
    """Return the branches that run, and the weight of each branch's velocity in the guided velocity of the first step.

    Classifier-free guidance is uncond + s (cond - uncond), where s is the policy's scale with the family's offset. Like
    the pipelines, a run with s <= 1 has one branch.
    """
    sampler = document.sampler
    scale = _scale(document, sampler.guidance)
    if sampler.guidance_rule != "classifier-free" or scale <= 1:
        return {branches[0]: 1.0}
    return {"cond": scale, "uncond": 1.0 - scale}


def guidance_weights(document: PolicyDocument, branches: Sequence[str]) -> list[list[float]]:
    """Return the weights of the branches of `guided_branches` for each step: each denoiser has its own guidance."""
    if len(guided_branches(document, branches)) == 1:
        return [[1.0]] * document.sampler.steps
    sampler = document.sampler
    scales = [_scale(document, sampler.guidance_at(step)) for step in range(sampler.steps)]
    return [[scale, 1.0 - scale] for scale in scales]


def rescales_guidance(document: PolicyDocument, branches: Sequence[str]) -> bool:
    """Whether the guided velocity is scaled to the norm of the conditional one, cell by cell."""
    family = family_named(document.model.denoisers[0].class_name)
    return family.rescales_guidance and len(guided_branches(document, branches)) > 1


def _scale(document: PolicyDocument, guidance: float) -> float:
    return float(guidance) + family_named(document.model.denoisers[0].class_name).guidance_offset


def group_branches(
    policy: Policy, branches: Sequence[str], first_steps: Collection[int] = ()
) -> list[BranchGroup]:
    """Return one group if all branches have the same mask and coefficients, else one group a branch.

    `first_steps`: those of the denoisers after the first.
    """
    plans = [_plan(policy, name, first_steps) for name in branches]
    for batched, names in BATCHED_BRANCHES.items():
        if names == tuple(branches) and all(plan == plans[0] for plan in plans):
            return [BranchGroup(batched, 0, len(branches))]
    return [BranchGroup(name, index, index + 1) for index, name in enumerate(branches)]


def ring_buffer(policy: Policy, name: str, first_steps: Collection[int] = ()) -> RingBuffer:
    """Return the ring buffer of a branch group. `first_steps`: those of the denoisers after the first.

    Every run fills the same slots in the same order, so that bound sessions and CUDA graphs are used again.
    """
    plan = _plan(policy, BATCHED_BRANCHES.get(name, (name,))[0], first_steps)
    slots = max(1, *(planned.keep for planned in plan))
    computed_before = [0]
    for planned in plan:
        computed_before.append(computed_before[-1] + planned.computed)
    return RingBuffer(slots, tuple(count % slots for count in computed_before[:-1]))


def _plan(policy: Policy, name: str, first_steps: Collection[int]) -> tuple[PlannedStep, ...]:
    branch = policy.for_branch(name)
    return plan_branch(branch.mask, branch.predictor, first_steps)
