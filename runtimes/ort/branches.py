"""Guidance branches: which ones run, what each weighs, and which of them share a forward."""

from collections.abc import Mapping, Sequence

from budc.runtimes.ort.memory import Buffer
from budc.runtimes.steps import BATCHED_BRANCHES, PlannedStep, plan_branch
from budc.schema.policy import Policy, PolicyDocument


class Group:
    """Guidance branches that run in one forward: their rows of the batch, and where their residuals lie."""

    def __init__(
        self,
        name: str,
        rows: tuple[int, int],
        inputs: Mapping[str, Buffer],
        velocity: Buffer,
        slots: Sequence[Buffer],
    ) -> None:
        self.name = name
        self.samples = rows[1] - rows[0]
        self.inputs = {name: buffer.rows(*rows) for name, buffer in inputs.items()}
        self.velocity = velocity.rows(*rows)
        self._slots = slots
        self._next = 0

    def slot(self) -> Buffer:
        """Return the memory for the next residual: there is one slot more than the policy ever keeps."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        return slot

    def begin_run(self) -> None:
        """Begin with the same slot in every run, so that calls and CUDA graphs are found again."""
        self._next = 0


def guided_branches(document: PolicyDocument, branches: Sequence[str]) -> dict[str, float]:
    """Return the branches that run and the weight of each one's velocity in the guided one.

    Classifier-free guidance is uncond + g (cond - uncond); at g of 1 or less a pipeline leaves it out.
    """
    sampler = document.sampler
    if sampler.guidance_rule != "classifier-free" or sampler.guidance <= 1:
        return {branches[0]: 1.0}
    return {"cond": float(sampler.guidance), "uncond": 1.0 - float(sampler.guidance)}


def plan_of(policy: Policy, name: str) -> tuple[PlannedStep, ...]:
    """Return the steps of one branch."""
    branch = policy.for_branch(name)
    return plan_branch(branch.mask, branch.predictor)


def grouped(policy: Policy, branches: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return (name, first, last branch): one group where all branches follow one plan, else one each."""
    plans = [plan_of(policy, name) for name in branches]
    for batched, names in BATCHED_BRANCHES.items():
        if names == tuple(branches) and all(plan == plans[0] for plan in plans):
            return [(batched, 0, len(branches))]
    return [(name, index, index + 1) for index, name in enumerate(branches)]
