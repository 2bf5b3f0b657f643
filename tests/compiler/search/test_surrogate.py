"""What the surrogate promises, against plain readings of its definition."""

import math
import random
from statistics import NormalDist

import numpy as np
import pytest

from budc.compiler.search.moves import relocated
from budc.compiler.search.surrogate import CEILING, LENGTH, NUGGET, Surrogate


def masks(steps, nfe, count, seed=0, lanes=1):
    """Return so many different slots, each with those of step 0."""
    rng, found = random.Random(seed), set()
    while len(found) < count:
        rest = rng.sample(range(lanes, steps * lanes), nfe * lanes - lanes)
        found.add((*range(lanes), *sorted(rest)))
    return sorted(found)


def cost(slots, errors, lanes=1):
    """The reuse errors of the masks of all lanes, step by step."""
    total = 0.0
    for lane in range(lanes):
        path = [slot // lanes for slot in slots if slot % lanes == lane]
        for k in set(range(len(errors))) - {*path}:
            *_, previous, last = [path[0], *(step for step in path if step < k)]
            total += errors[previous if previous != last else last][last][k]
    return total


def plain(space, payload, known, slots, lanes=1):
    """The expected improvement by the textbook: matrix inverse, one mask, densities of the standard library."""
    places, losses = list(known), np.array(list(known.values()))
    least = losses.min()
    losses = np.minimum(losses, least + CEILING)
    costs = np.log([cost(place, space.errors[payload], lanes) for place in places])
    away = costs - costs.mean()
    gain = max(0.0, away @ losses / (away @ away + 1e-3))
    left = losses - losses.mean() - gain * away

    def near(one, other):
        moved = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / lanes**2
        return math.exp(-moved / (LENGTH * space.steps))

    inverse = np.linalg.inv([[near(a, b) + NUGGET * (a == b) for b in places] for a in places])
    row = np.array([near(slots, place) for place in places])
    mean = losses.mean() + gain * (math.log(cost(slots, space.errors[payload], lanes)) - costs.mean())
    mean += row @ inverse @ left
    deviation = math.sqrt(left @ inverse @ left / len(left) * (1 - row @ inverse @ row))
    below, normal = (least - mean) / deviation, NormalDist()
    return deviation * (below * normal.cdf(below) + normal.pdf(below))


@pytest.mark.parametrize("lanes", [1, 2])
def test_the_promise_is_the_textbook_s(lanes, space, costs):
    box = space(
        12, 4, errors={"velocity": costs(12, 1)}, branches=("cond", "uncond")[:lanes], separate=lanes > 1
    )
    seen, others = masks(12, 4, 9, lanes=lanes), masks(12, 4, 30, seed=1, lanes=lanes)
    known = {slots: random.Random(str(slots)).gauss(-3, 1) for slots in seen}
    others = [slots for slots in others if slots not in known]
    found = Surrogate(box, "velocity", known).improvement(others)
    wanted = [plain(box, "velocity", known, slots, lanes) for slots in others]
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_what_is_known_promises_next_to_nothing(space, costs):
    box = space(20, 5, errors={"velocity": costs(20, 3)})
    known = {slots: random.Random(str(slots)).gauss(-3, 1) for slots in masks(20, 5, 12)}
    surrogate = Surrogate(box, "velocity", known)
    near = [slots for slots in relocated(box, min(known, key=known.get)) if slots not in known]
    assert max(surrogate.improvement(list(known))) < 0.05 * max(surrogate.improvement(near))


def test_where_losses_follow_the_reuse_errors_the_cheapest_mask_promises_most(space, costs):
    errors = costs(20, 3)
    box = space(20, 5, errors={"velocity": errors})
    known = {slots: 0.7 * math.log(cost(slots, errors)) for slots in masks(20, 5, 12)}
    others = [slots for slots in masks(20, 5, 200, seed=1) if slots not in known]
    promises = Surrogate(box, "velocity", known).improvement(others)
    assert others[promises.index(max(promises))] == min(others, key=lambda slots: cost(slots, errors))


def test_without_reuse_errors_it_learns_from_losses_alone(space):
    """Known masks lie on a line towards better ones: the next is beyond the best, not beyond the worst."""
    known = {(0, 5, 10 + place): -0.3 * place for place in range(4)}
    better, worse = Surrogate(space(20, 3), "velocity", known).improvement([(0, 5, 14), (0, 5, 9)])
    assert better > 2 * worse


@pytest.mark.parametrize("losses", [(math.inf, math.inf), (math.inf, -2.0), (0.5, 0.5)])
def test_losses_that_say_little_are_borne(losses, space, costs):
    known = dict(zip(masks(12, 4, 2), losses, strict=True))
    found = Surrogate(space(12, 4, errors={"velocity": costs(12, 1)}), "velocity", known).improvement(
        masks(12, 4, 20, seed=5)
    )
    assert all(math.isfinite(promise) and promise >= 0 for promise in found)
