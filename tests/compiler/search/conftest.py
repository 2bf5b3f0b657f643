"""To run a search without a model: spaces, loss landscapes with a known minimum, and the loop."""

import random

import pytest

from budc.compiler.search import ALGORITHMS, Space
from budc.policies.profile import AnnealingSettings

DEFAULTS = AnnealingSettings(temperature_start=0.1, temperature_end=1e-4, protected_fraction=0.3)


@pytest.fixture(scope="session")
def space():
    """Return a function that makes a space."""
    return lambda steps, nfe, **fields: Space(steps=steps, nfe=nfe, annealing=DEFAULTS, **fields)


@pytest.fixture(scope="session")
def run():
    """Return a function that runs a search to its end: (winner, every candidate proposed, in order)."""

    def run(name, space, loss, seed=0):
        proposals = ALGORITHMS[name].propose(space, random.Random(seed))
        seen, batch = [], next(proposals)
        while True:
            assert batch, "an empty list of candidates"
            seen += batch
            try:
                batch = proposals.send([loss(candidate) for candidate in batch])
            except StopIteration as end:
                return end.value, seen

    return run


@pytest.fixture(scope="session")
def bowl():
    """Return a quadratic landscape: squared distance of the computed steps to a target, `payload` half of others."""

    def bowl(target, payload="velocity"):
        def loss(candidate):
            masks = candidate.masks if len(candidate.masks) > 1 else candidate.masks * len(target)
            distance = sum(
                float("inf")
                if mask.nfe != len(steps)
                else sum((a - b) ** 2 for a, b in zip(mask.compute_steps, steps, strict=True))
                for mask, steps in zip(masks, target, strict=True)
            )
            return (1 + distance) * (1 if candidate.payload == payload else 2)

        return loss

    return bowl


@pytest.fixture(scope="session")
def costs():
    """Return a function that draws reuse errors E[previous, last, k] at random, infinite where meaningless."""

    def costs(steps, seed):
        rng = random.Random(seed)
        return [
            [
                [rng.random() * (k - last) if previous <= last < k else float("inf") for k in range(steps)]
                for last in range(steps)
            ]
            for previous in range(steps)
        ]

    return costs
