"""What the surrogate predicts, against its definition written out."""

import math
import random
from statistics import NormalDist

import numpy as np
import pytest

from budc.compiler.search.moves import all_relocations
from budc.compiler.search.surrogate import CEILING, LENGTH, NUGGET, Surrogate


def masks(steps, nfe, count, seed=0, branches=1):
    """Return so many different tuples of slots, each with those of step 0."""
    rng, drawn = random.Random(seed), set()
    while len(drawn) < count:
        rest = rng.sample(range(branches, steps * branches), nfe * branches - branches)
        drawn.add((*range(branches), *sorted(rest)))
    return sorted(drawn)


def cost(slots, errors, branches=1):
    """The reuse errors along the masks of all branches, step by step."""
    total = 0.0
    for branch in range(branches):
        path = [slot // branches for slot in slots if slot % branches == branch]
        for k in set(range(len(errors))) - {*path}:
            *_, previous, last = [path[0], *(step for step in path if step < k)]
            total += errors[previous if previous != last else last][last][k]
    return total


def plain(space, payload, observed, slots, branches=1):
    """The expected improvement by the textbook: matrix inverse, one mask, densities of the standard library."""
    scored, losses = list(observed), np.array(list(observed.values()))
    least = losses.min()
    losses = np.minimum(losses, least + CEILING)
    costs = np.log([cost(mask, space.errors[payload], branches) for mask in scored])
    away = costs - costs.mean()
    gain = max(0.0, away @ losses / (away @ away + 1e-3))
    left = losses - losses.mean() - gain * away

    def near(one, other):
        moved = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / branches**2
        return math.exp(-moved / (LENGTH * space.steps))

    inverse = np.linalg.inv([[near(a, b) + NUGGET * (a == b) for b in scored] for a in scored])
    row = np.array([near(slots, mask) for mask in scored])
    mean = losses.mean() + gain * (math.log(cost(slots, space.errors[payload], branches)) - costs.mean())
    mean += row @ inverse @ left
    deviation = math.sqrt(left @ inverse @ left / len(left) * (1 - row @ inverse @ row))
    below, normal = (least - mean) / deviation, NormalDist()
    return deviation * (below * normal.cdf(below) + normal.pdf(below))


@pytest.mark.parametrize("branches", [1, 2])
def test_the_expected_improvement_is_the_textbook_s(branches, space, costs):
    box = space(
        12,
        4,
        errors={"velocity": costs(12, 1)},
        branches=("cond", "uncond")[:branches],
        separate=branches > 1,
    )
    seen, others = masks(12, 4, 9, branches=branches), masks(12, 4, 30, seed=1, branches=branches)
    observed = {slots: random.Random(str(slots)).gauss(-3, 1) for slots in seen}
    others = [slots for slots in others if slots not in observed]
    improvements = Surrogate(box, "velocity", observed).improvement(others)
    wanted = [plain(box, "velocity", observed, slots, branches) for slots in others]
    assert improvements == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_a_scored_mask_promises_next_to_no_improvement(space, costs):
    box = space(20, 5, errors={"velocity": costs(20, 3)})
    observed = {slots: random.Random(str(slots)).gauss(-3, 1) for slots in masks(20, 5, 12)}
    surrogate = Surrogate(box, "velocity", observed)
    near = [slots for slots in all_relocations(box, min(observed, key=observed.get)) if slots not in observed]
    assert max(surrogate.improvement(list(observed))) < 0.05 * max(surrogate.improvement(near))


def test_where_losses_follow_the_reuse_errors_the_cheapest_mask_promises_most(space, costs):
    errors = costs(20, 3)
    box = space(20, 5, errors={"velocity": errors})
    observed = {slots: 0.7 * math.log(cost(slots, errors)) for slots in masks(20, 5, 12)}
    others = [slots for slots in masks(20, 5, 200, seed=1) if slots not in observed]
    improvements = Surrogate(box, "velocity", observed).improvement(others)
    assert others[improvements.index(max(improvements))] == min(others, key=lambda slots: cost(slots, errors))


def test_without_reuse_errors_it_learns_from_losses_alone(space):
    """The scored masks lie on a line towards better ones: the next is beyond the best, not beyond the worst."""
    observed = {(0, 5, 10 + k): -0.3 * k for k in range(4)}
    better, worse = Surrogate(space(20, 3), "velocity", observed).improvement([(0, 5, 14), (0, 5, 9)])
    assert better > 2 * worse


@pytest.mark.parametrize("losses", [(math.inf, math.inf), (math.inf, -2.0), (0.5, 0.5)])
def test_infinite_and_equal_losses_give_finite_improvements(losses, space, costs):
    observed = dict(zip(masks(12, 4, 2), losses, strict=True))
    improvements = Surrogate(
        space(12, 4, errors={"velocity": costs(12, 1)}), "velocity", observed
    ).improvement(masks(12, 4, 20, seed=5))
    assert all(math.isfinite(value) and value >= 0 for value in improvements)
