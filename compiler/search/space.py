"""The search space: the candidates of one budget, and what the reference run tells about them."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Literal

import msgspec

from budc.policies.profile import AnnealingSettings
from budc.runtimes.sampling.rules import FIXED_RULES
from budc.schema.mask import StepMask
from budc.schema.policy import PAYLOADS, Payload

DEFAULT_BATCH = 8
"""How many candidates a search proposes at a time where a cluster rolls them out, however many workers it has."""

Rule = Literal["plain", "linear", "gram", "tracked"]
"""How reused steps are predicted: `plain`, the newest payload unchanged; `linear`, the line through the two newest
(`budc.runtimes.sampling.rules`); `gram`, coefficients by least squares on the
reference run; `tracked`, on the policy's own trajectory."""


class Candidate(msgspec.Struct, frozen=True):
    """A policy to be scored: which steps compute, which payload is reused and how it is predicted.

    `masks` is one mask for all guidance branches, or one for each in the order of the model's branches.
    """

    masks: tuple[StepMask, ...]
    rule: Rule = "plain"
    payload: Payload = "trunk-residual"
    group: int = 0
    """The group of prompts that it is scored on."""

    @classmethod
    def of(
        cls, steps: int, compute: Sequence[int], rule: Rule = "plain", payload: Payload = "trunk-residual"
    ) -> Candidate:
        """Return the candidate that computes these steps in all branches."""
        return cls((StepMask.from_compute_steps(steps, compute),), rule, payload)

    @property
    def mask(self) -> StepMask:
        """The mask of all branches, or of the first."""
        return self.masks[0]

    @property
    def key(self) -> str:
        """A name; equal for two candidates exactly when they are the same policy."""
        steps = "|".join(",".join(str(step) for step in mask.compute_steps) for mask in self.masks)
        if self.rule == "plain" and self.payload == "trunk-residual":
            return steps
        return f"{steps} {self.rule} {self.payload}"


def fixed_steps(first_steps: Sequence[int], always: Sequence[int]) -> tuple[int, ...]:
    """Return the steps that every candidate computes: each denoiser's first one, and what an engine always computes."""
    return tuple(sorted({0, *first_steps, *always}))


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Candidates that compute `nfe` of `steps` steps in each of `branches`, with `rule` and one of `payloads`.

    The reference searches (paper, uniform) reuse trunk residuals unchanged, unless `rule` is an engine's own.

    `errors[payload]` are the reuse errors E[previous, last, k] of the reference run (`budc.compiler.fitting.gram`) as
    nested lists; empty for a search that needs none. `published_masks` are compute steps that others have published,
    scaled to this number of steps and budget (`budc.policies.published_masks`).
    """

    steps: int
    nfe: int
    branches: tuple[str, ...] = ("cond",)
    prompts: int = 24
    """How many prompts a loss is the mean of."""
    groups: int = 1
    """How many groups of so many prompts there are: a candidate may be scored on any of them."""
    annealing: AnnealingSettings
    separate: bool = False
    """Whether branches may have masks of their own, under the same total of branch evaluations."""
    rollouts: float = 1.0
    """Share of its limit of rollouts that `joint` takes."""
    rule: Rule = "tracked"
    payloads: tuple[Payload, ...] = PAYLOADS
    errors: Mapping[str, Sequence[Sequence[Sequence[float]]]] = {}
    step_sizes: tuple[float, ...] = ()
    """By how much each step changes sigma; empty where that is not known."""
    published_masks: tuple[tuple[int, ...], ...] = ()
    starts: tuple[tuple[int, ...], ...] = ()
    """Compute steps that `joint` starts from beside its own."""
    first_steps: tuple[int, ...] = ()
    """Steps at which another denoiser takes over: computed in every candidate, as the first step is."""
    always: tuple[int, ...] = ()
    """Steps that the engine of the policy computes in every run."""
    batch: int = 1
    """How many candidates `joint` proposes at a time, before it is told what any of them loses."""

    @property
    def fixed(self) -> tuple[int, ...]:
        """The steps that every candidate computes."""
        return fixed_steps(self.first_steps, self.always)

    @property
    def unfitted(self) -> tuple[Rule, Payload]:
        """Rule and payload of a search that fits nothing: those of the engine, where it has its own."""
        return (self.rule, self.payloads[0]) if self.rule in FIXED_RULES else ("plain", "trunk-residual")

    def through(self, steps: Sequence[int]) -> tuple[int, ...]:
        """Return so many compute steps, the fixed ones among them; see `StepMask.through`."""
        return StepMask.from_compute_steps(self.steps, steps).through(self.fixed).compute_steps


Proposals = Generator[list[Candidate], list[float], Candidate]
"""A running search: it yields candidates, is sent their losses, and returns the best candidate it has seen."""
