"""Dry run: a search on random losses, to estimate how much it rolls out before anything is rolled out."""

from __future__ import annotations

import random
from typing import NamedTuple

from budc.compiler.search import Algorithm, Candidate, Space
from budc.policies.profile import ModelProfile
from budc.policies.published_masks import masks_for
from budc.runtimes.sampling.schedulers import first_steps, passed_sigmas


class DryRun(NamedTuple):
    """Computed steps of one sample and branch, common prefixes counted once, and the number of candidates."""

    evaluations: int
    candidates: int


def dry_run(
    profile: ModelProfile, nfe: int, steps: int, algorithm: Algorithm, rollouts: float = 1.0
) -> DryRun:
    """Return what a search rolls out, with all reuse errors zero and a random loss for every candidate.

    `rollouts` is the share of its limit that it takes.
    """
    errors = [[[0.0] * steps for _ in range(steps)] for _ in range(steps)]
    space = Space(
        steps=steps,
        nfe=nfe,
        branches=profile.branches,
        annealing=profile.search,
        rollouts=rollouts,
        errors={"trunk-residual": errors, "velocity": errors},
        published_masks=masks_for(profile, steps, nfe),
        first_steps=_first_steps(profile, steps),
    )
    rng, proposals = random.Random(0), algorithm.propose(space, random.Random(0))
    losses: dict[str, float] = {}
    prefixes: set[tuple[object, ...]] = set()
    candidates = next(proposals)
    while True:
        for candidate in candidates:
            losses.setdefault(candidate.key, rng.random())
            prefixes.update(_prefixes(candidate))
        try:
            candidates = proposals.send([losses[candidate.key] for candidate in candidates])
        except StopIteration:
            return DryRun(len(prefixes), len(losses))


def _first_steps(profile: ModelProfile, steps: int) -> tuple[int, ...]:
    # The checkpoint's scheduler decides; a schedule without its shift is near enough to count candidates.
    boundaries = (profile.experts.boundary,) if profile.experts else ()
    firsts = first_steps(passed_sigmas(steps), boundaries)
    return tuple(min(max(1, first), steps - 1) for first in firsts)


def _prefixes(candidate: Candidate) -> list[tuple[object, ...]]:
    computed = candidate.mask.compute_steps
    return [(candidate.rule, candidate.payload, computed[: end + 1]) for end in range(len(computed))]
