"""What a search chooses from: candidates of one budget, and what is known of the model before any rollout."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Literal

import msgspec

from budc.policies.profile import AnnealingSettings
from budc.schema.mask import StepMask
from budc.schema.policy import PAYLOADS, Payload

Rule = Literal["plain", "gram", "tracked"]
"""How reused steps are predicted: the newest residual unchanged; least squares on the full run; `tracked` on the
policy's own trajectory."""


class Candidate(msgspec.Struct, frozen=True):
    """A policy under consideration: which steps compute, what is reused and how it is predicted.

    `masks` holds one mask for all guidance branches, or one a branch in the order of the model's branches.
    """

    masks: tuple[StepMask, ...]
    rule: Rule = "plain"
    payload: Payload = "trunk-residual"

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
        """A name that two candidates share exactly when they are the same policy."""
        steps = "|".join(",".join(str(step) for step in mask.compute_steps) for mask in self.masks)
        if self.rule == "plain" and self.payload == "trunk-residual":
            return steps
        return f"{steps} {self.rule} {self.payload}"


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Candidates of `nfe` computed steps out of `steps` in every one of `branches`.

    Searches of masks propose candidates of one `rule`, with every one of `payloads`; the reference searches (paper,
    uniform) are plain reuse of trunk residuals whatever these say.

    `errors[payload]` is the reuse-error tensor E[previous, last, k] of the full run as nested lists, where a
    search asks for it (`budc.compiler.fitting.gram`); `schedules` are compute steps that others have published for this
    number of steps and budget, or that were scaled to it (`budc.policies.published_masks`).
    """

    steps: int
    nfe: int
    branches: tuple[str, ...] = ("cond",)
    annealing: AnnealingSettings
    separate: bool = False
    """Whether branches may have masks of their own, under the same total of branch evaluations."""
    rule: Rule = "tracked"
    payloads: tuple[Payload, ...] = PAYLOADS
    errors: Mapping[str, Sequence[Sequence[Sequence[float]]]] = {}
    published_masks: tuple[tuple[int, ...], ...] = ()
    first_steps: tuple[int, ...] = ()
    """Steps at which another denoiser takes over: computed in every candidate, as the first step is."""

    @property
    def fixed(self) -> tuple[int, ...]:
        """The steps that every candidate computes."""
        return (0, *self.first_steps)

    def through(self, steps: Sequence[int]) -> tuple[int, ...]:
        """Return compute steps with the fixed ones among them, see `StepMask.through`."""
        return StepMask.from_compute_steps(self.steps, steps).through(self.fixed).compute_steps


Proposals = Generator[list[Candidate], list[float], Candidate]
"""A search at work: yields candidates, is sent their losses, returns the best that it has seen."""
