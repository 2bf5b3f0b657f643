"""Dry run: a search on made-up losses, to know about how much it would roll out before anything is rolled out."""

from __future__ import annotations

import random

from budc.compiler.search import Algorithm, Candidate, Space
from budc.policies.profile import ModelProfile
from budc.policies.published_masks import masks_for
from budc.runtimes.sampling.schedulers import first_steps, passed_sigmas


def dry_run(profile: ModelProfile, nfe: int, steps: int, chosen: Algorithm) -> tuple[int, int]:
    """Return (computed steps of one sample and branch, candidates) of a search on made-up losses."""
    none = [[[0.0] * steps for _ in range(steps)] for _ in range(steps)]
    space = Space(
        steps=steps,
        nfe=nfe,
        branches=profile.branches,
        annealing=profile.search,
        errors={"trunk-residual": none, "velocity": none},
        published_masks=masks_for(profile, steps, nfe),
        first_steps=_first_steps(profile, steps),
    )
    rng, walk = random.Random(0), chosen.walk(space, random.Random(0))
    losses: dict[str, float] = {}
    prefixes: set[tuple[object, ...]] = set()
    candidates = next(walk)
    while True:
        for candidate in candidates:
            losses.setdefault(candidate.key, rng.random())
            prefixes.update(_prefixes(candidate))
        try:
            candidates = walk.send([losses[candidate.key] for candidate in candidates])
        except StopIteration:
            return len(prefixes), len(losses)


def _first_steps(profile: ModelProfile, steps: int) -> tuple[int, ...]:
    # The checkpoint's scheduler decides; a schedule without a shift is near enough to count candidates.
    boundaries = (profile.experts.boundary,) if profile.experts else ()
    found = first_steps(passed_sigmas(steps), boundaries)
    return tuple(min(max(1, first), steps - 1) for first in found)


def _prefixes(candidate: Candidate) -> list[tuple[object, ...]]:
    computed = candidate.mask.compute_steps
    return [(candidate.rule, candidate.payload, computed[: end + 1]) for end in range(len(computed))]
