"""Golden policies: of every kind one, with what it must do written down by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from budc.schema.policy import BranchPolicy, Policy, PolicyDocument

BRANCHES = ("cond", "uncond")
STEPS = 6


@dataclass(frozen=True)
class Golden:
    """A policy of six steps and what it must do, written down by hand.

    `actions` has one character a step: C for compute, else how many residuals are combined. `uncond` holds
    rows of that branch where it has its own.
    """

    rows: Sequence[Sequence[float]]
    actions: str
    uncond: Sequence[Sequence[float]] | None = None
    uncond_actions: str | None = None
    sigmas: Sequence[float] | None = None

    def document(self, base: PolicyDocument) -> PolicyDocument:
        """Return `base` with this policy (and these sigmas) in place of its own."""
        if self.uncond is None:
            branches = [_branch(BRANCHES, self.rows)]
        else:
            branches = [_branch(("cond",), self.rows), _branch(("uncond",), self.uncond)]
        evaluations = {name: sum(b.mask) for b in branches for name in b.names}
        document = msgspec.structs.replace(
            base,
            policy=Policy(payload=base.policy.payload, branches=branches),
            budget=msgspec.structs.replace(base.budget, nfe=max(evaluations.values()), branches=evaluations),
        )
        if self.sigmas is None:
            return document
        sigmas = [float(np.float32(sigma)) for sigma in self.sigmas]
        timesteps = [float(np.float32(sigma) * np.float32(1000)) for sigma in sigmas[:-1]]
        sampler = msgspec.structs.replace(base.sampler, sigmas=sigmas, timesteps=timesteps)
        return msgspec.structs.replace(document, sampler=sampler)

    def expected(self, branch: str) -> str:
        """Return the actions of one branch."""
        return self.uncond_actions if branch == "uncond" and self.uncond_actions else self.actions


def _branch(names: Sequence[str], rows: Sequence[Sequence[float]]) -> BranchPolicy:
    return BranchPolicy.of(names, rows)


GOLDEN: Mapping[str, Golden] = {
    "plain reuse": Golden(((), (1.0,), (), (), (1.0,), (1.0,)), "C1CC11"),
    "two terms": Golden(((), (1.0,), (), (1.5, -0.5), (), (1.25, -0.25)), "C1C2C2"),
    "three terms": Golden(((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25)), "C1CC23"),
    "a scaled residual": Golden(((), (0.875,), (1.25,), (), (0.5,), (1.0,)), "C11C11"),
    "aligned sigmas": Golden(
        ((), (1.0,), (), (1.5, -0.5), (), (1.0,)), "C1C2C1", sigmas=(0.99, 0.91, 0.84, 0.6, 0.42, 0.13, 0.0)
    ),
    "separate branches": Golden(
        ((), (1.0,), (), (), (1.5, -0.5), ()),
        "C1CC2C",
        uncond=((), (), (1.0,), (1.0,), (), (1.0,)),
        uncond_actions="CC11C1",
    ),
    "every step": Golden(((),) * 6, "CCCCCC"),
    "one evaluation": Golden(((), *((1.0,),) * 5), "C11111"),
}
"""Policies of every kind."""
