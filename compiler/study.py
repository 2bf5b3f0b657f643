"""Pass 3, search: the loop between an algorithm that proposes and rollouts that score.

    loss(candidate) = mean over prompts of the mean squared error of the final latents against the full run

Every candidate is scored once: scores are memoised, and in the journal before the algorithm sees them.
"""

from __future__ import annotations

import math
import random

import msgspec

from budc.compiler.calibrate import Reference
from budc.compiler.journal import Journal
from budc.compiler.metrics import latent_errors
from budc.compiler.progress import progress
from budc.compiler.rollout import Roller, shared_policy
from budc.compiler.search import Candidate, Space, algorithm
from budc.schema.errors import CompileError
from budc.schema.policy import SamplerBinding

OBJECTIVE = "latent-mse-mean"


class Found(msgspec.Struct, frozen=True):
    """The winner of a search, its loss on the calibration prompts, and what it cost."""

    candidate: Candidate
    loss: float
    candidates: int
    forwards: int


def search(
    name: str,
    space: Space,
    roller: Roller,
    sampler: SamplerBinding,
    reference: Reference,
    journal: Journal,
    seed: int,
) -> Found:
    """Run an algorithm to its end and return what it found.

    Raises:
        UsageError: there is no algorithm of that name.
    """
    chosen = algorithm(name)
    walk = chosen.walk(space, random.Random(seed))
    scores: dict[str, float] = {}
    cost = space.nfe * len(roller.model.profile.branches) * len(reference.conditions)

    def score(candidate: Candidate) -> float:
        if candidate.key not in scores:
            known = journal.get(candidate.key)
            replayed = known is not None
            if known is None:
                policy = shared_policy(candidate.mask, candidate.predictor, roller.model.profile.branches)
                latents = roller.roll(policy, sampler, reference.conditions, bar)
                known = sum(errors := latent_errors(latents, reference.latents)) / len(errors)
                if not math.isfinite(known):
                    raise CompileError(
                        f"candidate {candidate.key}: the final latents are not finite",
                        remedy="check that the full run works in the profile's dtype; try another search or budget",
                    )
                journal.put(candidate.key, known)
            scores[candidate.key] = known
            bar.advance(f"best {min(scores.values()):.3g}", replayed=replayed)
        return scores[candidate.key]

    with progress(f"search ({name})", chosen.at_most(space)) as bar:
        candidates = next(walk)
        while True:
            try:
                candidates = walk.send([score(candidate) for candidate in candidates])
            except StopIteration as end:
                winner: Candidate = end.value
                break
    return Found(winner, scores[winner.key], len(scores), len(scores) * cost)
