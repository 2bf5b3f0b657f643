"""Golden policies: one of every kind, with the actions that it must lead to written down by hand."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from budc.runtimes.sampling.step_plan import plan_branch
from budc.schema.errors import SemanticsViolation
from budc.schema.policy import Policy, PolicyDocument

BRANCHES = ("cond", "uncond")
STEPS = 6

Predictor = Sequence[Sequence[float]]
"""One row of coefficients a step, newest first; empty where the step is computed."""


@dataclass(frozen=True)
class GoldenPolicy:
    """A policy of six steps, and what it must do."""

    predictor: Predictor
    actions: str
    """One character a step: C for compute, else the number of cached tensors that are combined."""
    uncond_predictor: Predictor | None = None
    """That of the branch uncond, if it differs."""
    uncond_actions: str | None = None
    sigmas: Sequence[float] | None = None
    """Seven decreasing sigmas, the last one 0, in place of the document's own."""

    def document(self, base: PolicyDocument) -> PolicyDocument:
        """Return `base` with this policy, and with these sigmas if there are any."""
        uncond = self.predictor if self.uncond_predictor is None else self.uncond_predictor
        policy = Policy.of(base.policy.payload, dict(zip(BRANCHES, (self.predictor, uncond), strict=True)))
        evaluations = {name: policy.for_branch(name).step_mask().nfe for name in BRANCHES}
        document = msgspec.structs.replace(
            base,
            policy=policy,
            budget=msgspec.structs.replace(base.budget, nfe=max(evaluations.values()), branches=evaluations),
        )
        if self.sigmas is None:
            return document
        sigmas = [float(np.float32(sigma)) for sigma in self.sigmas]
        timesteps = [float(np.float32(sigma) * np.float32(1000)) for sigma in sigmas[:-1]]
        sampler = msgspec.structs.replace(base.sampler, sigmas=sigmas, timesteps=timesteps)
        return msgspec.structs.replace(document, sampler=sampler)

    def fits(self, first_steps: Collection[int]) -> bool:
        """Whether denoisers that take over at these steps can run it: each computes first, and reuses only its own."""
        for rows in (self.predictor, self.uncond_predictor or self.predictor):
            try:
                plan_branch([not row for row in rows], rows, first_steps)
            except SemanticsViolation:
                return False
        return True

    def expected(self, branch: str) -> str:
        """Return the actions of one branch."""
        return self.uncond_actions if branch == "uncond" and self.uncond_actions else self.actions


GOLDEN: Mapping[str, GoldenPolicy] = {
    "plain reuse": GoldenPolicy(((), (1.0,), (), (), (1.0,), (1.0,)), "C1CC11"),
    "two terms": GoldenPolicy(((), (1.0,), (), (1.5, -0.5), (), (1.25, -0.25)), "C1C2C2"),
    "three terms": GoldenPolicy(((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25)), "C1CC23"),
    "two terms twice": GoldenPolicy(((), (), (1.5, -0.5), (), (), (1.25, -0.25)), "CC2CC2"),
    "a scaled residual": GoldenPolicy(((), (0.875,), (1.25,), (), (0.5,), (1.0,)), "C11C11"),
    "aligned sigmas": GoldenPolicy(
        ((), (1.0,), (), (1.5, -0.5), (), (1.0,)), "C1C2C1", sigmas=(0.99, 0.91, 0.84, 0.6, 0.42, 0.13, 0.0)
    ),
    "separate branches": GoldenPolicy(
        ((), (1.0,), (), (), (1.5, -0.5), ()),
        "C1CC2C",
        uncond_predictor=((), (), (1.0,), (1.0,), (), (1.0,)),
        uncond_actions="CC11C1",
    ),
    "every step": GoldenPolicy(((),) * 6, "CCCCCC"),
    "one evaluation": GoldenPolicy(((), *((1.0,),) * 5), "C11111"),
}
"""A policy of every kind, by name."""
