"""What a search chooses from: candidates of one budget, and the settings of the model's family."""

from __future__ import annotations

import msgspec

from budc.policies.profile import SearchDefaults
from budc.schema.mask import StepMask
from budc.schema.predictor import Predictor


class Candidate(msgspec.Struct, frozen=True):
    """A policy under consideration: which steps compute, and how the others are predicted."""

    mask: StepMask
    predictor: Predictor

    @classmethod
    def plain(cls, steps: int, compute: tuple[int, ...]) -> Candidate:
        """Return the candidate that computes these steps and repeats the newest residual at all others."""
        mask = StepMask.from_compute_steps(steps, compute)
        return cls(mask, Predictor.plain_reuse(mask))

    @property
    def key(self) -> str:
        """A name that two candidates share exactly when they are the same policy."""
        steps = ",".join(str(step) for step in self.mask.compute_steps)
        if self.predictor == Predictor.plain_reuse(self.mask):
            return steps
        return f"{steps} {msgspec.json.encode(self.predictor).decode()}"


class Space(msgspec.Struct, frozen=True):
    """Candidates of `nfe` computed steps out of `steps`."""

    steps: int
    nfe: int
    defaults: SearchDefaults
