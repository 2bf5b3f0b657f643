"""The default search against the exhaustive one, on spaces small enough to go through.

The search draws nothing, so what a seed changes is the landscape: prompts and noise.
"""

import math
import random

import pytest

from budc.compiler.rollouts.metrics import objective
from budc.compiler.search import ALGORITHMS
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.space import space_of
from budc.compiler.storage.journal import Journal


def walked(name, space, loss):
    """Run a search; return the least loss that it saw."""
    walk = ALGORITHMS[name].propose(space, random.Random(0))
    lowest, batch = math.inf, next(walk)
    while True:
        losses = loss(batch)
        lowest = min(lowest, *losses)
        try:
            batch = walk.send(losses)
        except StopIteration:
            return lowest


def landscape(toys, task, folder, solver, steps, nfe, seed):
    """Return the space and the losses of all of its candidates."""
    given = task(steps, nfe, solver=solver, conditions=toys.conditions(16, shape=(4, 8), seed=seed))
    with Journal(folder / f"agreement {seed}", "agreement") as journal:
        finder = Finder(Calibration(given, journal))
    tree = finder.calibration.tree((0, 16))
    space = space_of(finder.task, tree.run)
    losses = {}

    def roll(candidates):
        for candidate, rollout in zip(candidates, tree.roll_out(candidates), strict=True):
            losses[candidate.masks, candidate.payload] = objective("log-mean", rollout.errors)
        return [losses[candidate.masks, candidate.payload] for candidate in candidates]

    walked("exhaustive", space, roll)
    assert len(losses) == 2 * math.comb(steps - 1, nfe - 1)
    return space, losses


def ratio(space, losses):
    """Return the error of what the default search finds over that of the best candidate."""

    def look_up(candidates):
        return [losses[candidate.masks, candidate.payload] for candidate in candidates]

    return math.exp(walked("joint", space, look_up) - min(losses.values()))


@pytest.mark.parametrize("solver", [pytest.param("euler", marks=pytest.mark.slow), "unipc"])
@pytest.mark.parametrize(
    ("steps", "nfe", "candidates"),
    [(8, 3, 42), *(pytest.param(*size, marks=pytest.mark.slow) for size in [(10, 4, 168), (12, 5, 660)])],
)
def test_the_default_search_finds_the_best_of_all_candidates(
    toys, task, tmp_path, solver, steps, nfe, candidates
):
    landscapes = [landscape(toys, task, tmp_path, solver, steps, nfe, seed) for seed in range(2)]
    assert all(len(losses) == candidates for _, losses in landscapes)
    ratios = [ratio(*given) for given in landscapes]
    assert max(ratios) < 1.01, ratios


@pytest.mark.slow
@pytest.mark.endless
@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize(("steps", "nfe"), [(12, 5), (16, 6)])
def test_the_default_search_finds_the_best_of_all_candidates_in_10_of_10_seeds(
    toys, task, tmp_path, solver, steps, nfe
):
    ratios = [ratio(*landscape(toys, task, tmp_path, solver, steps, nfe, seed)) for seed in range(10)]
    assert max(ratios) < 1.01, ratios
