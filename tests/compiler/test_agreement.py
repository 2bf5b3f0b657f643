"""The default search against the exhaustive one, on spaces small enough to go through."""

import math
import random

import pytest

from budc.compiler.find import Finder
from budc.compiler.journal import Journal
from budc.compiler.search import ALGORITHMS
from budc.compiler.study import objective

SEEDS = range(10)


def walked(name, space, loss, seed=0):
    """Run a search; return the least loss that it saw."""
    walk = ALGORITHMS[name].walk(space, random.Random(seed))
    lowest, batch = math.inf, next(walk)
    while True:
        losses = loss(batch)
        lowest = min(lowest, *losses)
        try:
            batch = walk.send(losses)
        except StopIteration:
            return lowest


def check(task, folder, solver, steps, nfe, seeds=SEEDS):
    with Journal(folder / "agreement", "agreement") as journal:
        finder = Finder(task(steps, nfe, solver=solver, samples=16, shape=(4, 8)), journal)
    tree = finder._tree(16)
    space = finder._space(finder.task, tree)
    known = {}

    def roll(candidates):
        for candidate, rollout in zip(candidates, tree.roll(candidates), strict=True):
            known[candidate.masks, candidate.payload] = objective("log-mean", rollout.errors)
        return [known[candidate.masks, candidate.payload] for candidate in candidates]

    best = walked("exhaustive", space, roll)
    assert len(known) == 2 * math.comb(steps - 1, nfe - 1)

    def look_up(candidates):
        return [known[candidate.masks, candidate.payload] for candidate in candidates]

    ratios = [math.exp(walked("joint", space, look_up, seed) - best) for seed in seeds]
    assert max(ratios) < 1.01, ratios


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_the_default_search_finds_the_best_of_660_candidates_in_10_of_10_seeds(task, tmp_path, solver):
    check(task, tmp_path, solver, 12, 5)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_the_default_search_finds_the_best_of_6006_candidates_in_10_of_10_seeds(task, tmp_path, solver):
    check(task, tmp_path, solver, 16, 6)
