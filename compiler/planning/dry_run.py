"""Dry run: a search on made-up losses, to estimate how much it rolls out before anything is rolled out.

    loss = scale · Σ over reused steps of weight[step] · age        age: steps since the last computed one

The weights are drawn at random, so that candidates differ smoothly, as they do on real models: with independent losses
a climb would end in its first round, and annealing would stay where it is. Searches whose length depends on losses are
run on seven such landscapes. The scale decides how often annealing accepts a worse mask; losses of real models
are of about this size.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import msgspec

from budc.compiler.planning.count import Count
from budc.compiler.rollouts.node_memory import PrefixMemory
from budc.compiler.search import Candidate, Space, algorithm
from budc.compiler.search.space import Rule
from budc.policies.profile import AnnealingSettings, ModelProfile
from budc.policies.published_masks import masks_for
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.mask import StepMask
from budc.schema.policy import PAYLOADS, Payload

LANDSCAPES = 7
SCALE = 0.01
"""Loss of the uniform mask."""

ROUGHNESS = 0.5
"""Standard deviation of the weights' logarithms."""

FORGOTTEN = 0.3
"""How much more is rolled out where only the last rollout is remembered, at most; for `joint`, 0.12 to 0.26 were
counted. With two remembered it was 0.01 to 0.10, with three none to 0.06: in inverse proportion is enough."""


class Given(NamedTuple):
    """What a search is given, whatever its effort: the fields of its `Space`."""

    steps: int
    nfe: int
    annealing: AnnealingSettings
    published_masks: tuple[tuple[int, ...], ...]
    first_steps: tuple[int, ...]
    rule: Rule = "tracked"
    payloads: tuple[Payload, ...] = PAYLOADS
    always: tuple[int, ...] = ()


def given_to(profile: ModelProfile, nfe: int, steps: int, engine: DeploymentTarget | None = None) -> Given:
    """Return what a search for this model is given, or for an engine that runs it."""
    given = Given(steps, nfe, profile.search, masks_for(profile, steps, nfe), _first_steps(profile, steps))
    if engine is None or engine.rule == "none":
        return given
    if engine.masks is not None:
        masks = tuple(mask.compute_steps for mask in engine.masks(steps, nfe))
        given = given._replace(published_masks=masks)
    return given._replace(rule=engine.rule, payloads=(engine.payload,), always=engine.always_computed(steps))


def dry_run(
    given: Given,
    search: str,
    rollouts: float = 1.0,
    remembered: int = 10**9,
    groups: int = 1,
) -> Count:
    """Return how many steps a search computes for one sample and branch, where so many prefixes are `remembered`.

    `rollouts` is the share of its limit that `joint` takes. Of several `groups` of prompts, each rolls out some masks
    of a small space, and some prefixes are computed for more than one. A search whose length depends on losses is run
    on made-up ones: the median is what is expected.
    """
    chosen = algorithm(search)
    if chosen.evaluations is not None:
        space = _space(given, rollouts)
        least, apart = (chosen.evaluations(_grouped(space, count)) for count in (1, groups))
        unshared = chosen.max_candidates(space) * given.nfe
        again = 0.0 if remembered >= least else FORGOTTEN * given.nfe / max(remembered, given.nfe)
        most = max(least, min(math.ceil((1 + again) * apart), unshared))
        return Count((least + most) // 2, least, most)
    found = sorted(_computed_steps(search, given, seed, remembered) for seed in range(LANDSCAPES))
    return Count(round(statistics.median(found)), found[0], found[-1])


def _space(given: Given, rollouts: float = 1.0) -> Space:
    return Space(**given._asdict(), rollouts=rollouts)


def _grouped(space: Space, groups: int) -> Space:
    return msgspec.structs.replace(space, groups=groups)


def _first_steps(profile: ModelProfile, steps: int) -> tuple[int, ...]:
    # The checkpoint's scheduler decides; a schedule without its shift is near enough to count candidates.
    if not profile.experts:
        return ()
    sigmas = (1 - step / steps for step in range(steps))
    first = sum(sigma >= profile.experts.boundary for sigma in sigmas)
    return (min(max(1, first), steps - 1),)


@cache
def _computed_steps(search: str, given: Given, seed: int, remembered: int) -> int:
    """Return the computed steps of a search's rollouts on one landscape."""
    nodes = PrefixMemory[tuple[object, ...]](remembered)
    computed = 0
    for candidate in _candidates(search, _space(given), seed):
        path = _prefixes(candidate)
        for prefix in reversed(path):
            if prefix in nodes:
                break
            computed += 1
        nodes.use(path, [1] * len(path))
    return computed


def _candidates(search: str, space: Space, seed: int) -> Iterator[Candidate]:
    """Yield every candidate of a search once, in the order in which they are scored."""
    rng = random.Random(seed)
    weights = [math.exp(rng.gauss(0, ROUGHNESS)) for _ in range(space.steps)]
    unit = SCALE / (_error(StepMask.uniform(space.steps, space.nfe), weights) or 1.0)
    proposals = algorithm(search).propose(space, random.Random(seed))
    losses: dict[str, float] = {}
    candidates = next(proposals)
    while True:
        for candidate in candidates:
            if candidate.key not in losses:
                losses[candidate.key] = unit * _error(candidate.mask, weights)
                yield candidate
        try:
            candidates = proposals.send([losses[candidate.key] for candidate in candidates])
        except StopIteration:
            return


def _error(mask: StepMask, weights: Sequence[float]) -> float:
    error, age = 0.0, 0
    for computed, weight in zip(mask, weights, strict=True):
        age = 0 if computed else age + 1
        error += weight * age
    return error


def _prefixes(candidate: Candidate) -> list[tuple[object, ...]]:
    computed = candidate.mask.compute_steps
    return [(candidate.rule, candidate.payload, computed[: end + 1]) for end in range(len(computed))]
