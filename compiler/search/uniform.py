"""No search: computed steps spread evenly over the schedule. The baseline of every quality report."""

from __future__ import annotations

import random

from budc.compiler.search.space import Candidate, Proposals, Space
from budc.schema.mask import StepMask


def uniform(space: Space, rng: random.Random) -> Proposals:
    """Propose the uniform mask and return it."""
    spread = StepMask.uniform(space.steps, space.nfe).compute_steps
    candidate = Candidate.of(space.steps, space.through(spread), *space.unfitted)
    yield [candidate]
    return candidate
