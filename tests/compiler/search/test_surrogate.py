"""What the surrogate predicts, against its definition written out."""

import math
import random
from statistics import NormalDist

import numpy as np
import pytest

from budc.compiler.search.moves import Trial, all_relocations
from budc.compiler.search.surrogate import CEILING, GAIN_PRIOR, LENGTH, NUGGET, POWERS, Surrogate


def masks(steps, nfe, count, seed=0, branches=1):
    """Return so many different tuples of slots, each with those of step 0."""
    rng, drawn = random.Random(seed), set()
    while len(drawn) < count:
        rest = rng.sample(range(branches, steps * branches), nfe * branches - branches)
        drawn.add((*range(branches), *sorted(rest)))
    return sorted(drawn)


def trials(observed):
    """Return losses of masks as those of trials on the one group of prompts."""
    return {Trial(slots): loss for slots, loss in observed.items()}


def cost(slots, errors, branches=1, weights=None):
    """The weighted reuse errors along the masks of all branches, step by step."""
    weights = weights or [1] * len(errors)
    total = 0.0
    for branch in range(branches):
        path = [slot // branches for slot in slots if slot % branches == branch]
        for k in set(range(len(errors))) - {*path}:
            *_, previous, last = [path[0], *(step for step in path if step < k)]
            total += weights[k] * errors[previous if previous != last else last][last][k]
    return total


def plain(space, payload, observed, slots, branches=1):
    """The expected improvement by the textbook: matrix inverse, one mask, densities of the standard library.

    `observed` are losses of trials; masks are predicted one by one, for the least loss among those of several groups.
    """
    scored, groups = [trial.slots for trial in observed], np.array([trial.group for trial in observed])
    losses = np.array(list(observed.values()))
    least = losses.min()
    for group in {*groups}:
        losses[groups == group] = np.minimum(losses[groups == group], losses[groups == group].min() + CEILING)
    several = space.groups > 1
    same = groups[:, None] == groups[None, :]
    shared = (1 + same) / 2 if several else 1.0
    prior = (1 + 1 / space.groups) / 2 if several else 1.0

    def near(one, other):
        moved = sum(abs(a - b) for a, b in zip(one, other, strict=True)) / branches**2
        return math.exp(-moved / (LENGTH * space.steps))

    process = np.array([[near(a, b) for b in scored] for a in scored]) * shared
    inverse = np.linalg.inv(process + NUGGET * np.eye(len(scored)))

    def fitted(power, slots):
        """The variance of the process, and the mean for the mask, with costs of this power of the step's size."""
        row = prior * np.array([near(slots, mask) for mask in scored])
        sizes = space.step_sizes or [1] * space.steps
        weights = [size**power for size in sizes]
        costs = [math.log(cost(mask, space.errors[payload], branches, weights)) for mask in (*scored, slots)]
        away = np.array(costs) - np.mean(costs[:-1])
        within = np.array(
            [
                [one - np.mean(values[groups == group]) for one, group in zip(values, groups, strict=True)]
                for values in (away[:-1], losses)
            ]
        )
        gain = (within[0] @ within[1] + GAIN_PRIOR) / (within[0] @ within[0] + GAIN_PRIOR)
        gain = max(0.0, gain)
        left = losses - gain * away[:-1]
        offsets = [left.mean()]
        if several:
            design = (groups[:, None] == np.arange(space.groups)).astype(float)
            offsets = np.linalg.inv(design.T @ inverse @ design) @ design.T @ inverse @ left
        left = left - np.array(offsets)[groups]
        return left @ inverse @ left / len(left), np.mean(offsets) + gain * away[-1] + row @ inverse @ left

    def best_fit(slots):
        return min(fitted(power, slots) for power in POWERS)

    if several:
        least = min(best_fit(mask)[1] for mask in scored)
    (variance, mean), row = best_fit(slots), prior * np.array([near(slots, mask) for mask in scored])
    deviation = math.sqrt(variance * (prior - row @ inverse @ row))
    below, normal = (least - mean) / deviation, NormalDist()
    return deviation * (below * normal.cdf(below) + normal.pdf(below))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("branches", [1, 2])
def test_the_expected_improvement_is_the_textbook_s(branches, groups, space, costs):
    box = space(
        12,
        4,
        errors={"velocity": costs(12, 1)},
        step_sizes=tuple(0.2 + step**2 / 50 for step in range(12)),
        branches=("cond", "uncond")[:branches],
        separate=branches > 1,
        groups=groups,
    )
    seen, others = masks(12, 4, 9, branches=branches), masks(12, 4, 30, seed=1, branches=branches)
    observed = {
        Trial(slots, number % groups): random.Random(str(slots)).gauss(-3, 1)
        for number, slots in enumerate(seen)
    }
    others = [slots for slots in others if slots not in seen]
    improvements = Surrogate(box, "velocity", observed).improvement(others)
    wanted = [plain(box, "velocity", observed, slots, branches) for slots in others]
    assert improvements == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_a_scored_mask_promises_next_to_no_improvement(space, costs):
    box = space(20, 5, errors={"velocity": costs(20, 3)})
    observed = {slots: random.Random(str(slots)).gauss(-3, 1) for slots in masks(20, 5, 12)}
    surrogate = Surrogate(box, "velocity", trials(observed))
    near = [slots for slots in all_relocations(box, min(observed, key=observed.get)) if slots not in observed]
    assert max(surrogate.improvement(list(observed))) < 0.05 * max(surrogate.improvement(near))


def test_where_losses_follow_the_reuse_errors_the_cheapest_mask_promises_most(space, costs):
    errors = costs(20, 3)
    box = space(20, 5, errors={"velocity": errors})
    observed = {slots: 0.7 * math.log(cost(slots, errors)) for slots in masks(20, 5, 12)}
    others = [slots for slots in masks(20, 5, 200, seed=1) if slots not in observed]
    improvements = Surrogate(box, "velocity", trials(observed)).improvement(others)
    assert others[improvements.index(max(improvements))] == min(others, key=lambda slots: cost(slots, errors))


@pytest.mark.parametrize("power", POWERS)
def test_the_power_of_the_step_s_size_is_learnt_from_losses(power, space, costs):
    """Whatever the power that losses follow, the mask that is cheapest by it promises most."""
    errors, sizes = costs(20, 3), tuple(0.3 + (step % 5) / 2 for step in range(20))
    weights = [size**power for size in sizes]
    box = space(20, 5, errors={"velocity": errors}, step_sizes=sizes)
    observed = {slots: math.log(cost(slots, errors, weights=weights)) for slots in masks(20, 5, 12)}
    others = [slots for slots in masks(20, 5, 200, seed=1) if slots not in observed]
    improvements = Surrogate(box, "velocity", trials(observed)).improvement(others)
    cheapest = min(others, key=lambda slots: cost(slots, errors, weights=weights))
    assert others[improvements.index(max(improvements))] == cheapest


def test_few_losses_are_believed_less_than_the_reuse_errors(space, costs):
    """Of two masks with nearly one cost the losses tell no gain, so that of the reuse errors stays: 1."""
    errors = costs(20, 3)
    box = space(20, 5, errors={"velocity": errors})
    ranked = sorted(masks(20, 5, 200), key=lambda slots: cost(slots, errors))
    observed = {ranked[-1]: -3.1, ranked[-2]: -3.0}
    improvements = Surrogate(box, "velocity", trials(observed)).improvement(ranked[:100])
    assert improvements.index(max(improvements)) < 10


def test_without_reuse_errors_it_learns_from_losses_alone(space):
    """The scored masks lie on a line towards better ones: the next is beyond the best, not beyond the worst."""
    observed = {(0, 5, 10 + k): -0.3 * k for k in range(4)}
    better, worse = Surrogate(space(20, 3), "velocity", trials(observed)).improvement([(0, 5, 14), (0, 5, 9)])
    assert better > 2 * worse


@pytest.mark.parametrize("losses", [(math.inf, math.inf), (math.inf, -2.0), (0.5, 0.5)])
def test_infinite_and_equal_losses_give_finite_improvements(losses, space, costs):
    observed = dict(zip(masks(12, 4, 2), losses, strict=True))
    improvements = Surrogate(
        space(12, 4, errors={"velocity": costs(12, 1)}), "velocity", trials(observed)
    ).improvement(masks(12, 4, 20, seed=5))
    assert all(math.isfinite(value) and value >= 0 for value in improvements)


def test_a_group_of_easy_prompts_makes_no_mask_better(space):
    """All masks of the second group lose less by as much, so the order of the masks is that of one group."""
    box, ease = space(20, 3, groups=2), 5.0
    line = [(0, 5, 6 + k) for k in range(8)]
    observed = {Trial(slots, k % 2): -0.3 * k - ease * (k % 2) for k, slots in enumerate(line)}
    losses = Surrogate(box, "velocity", observed | {Trial(line[0], 1): -ease}).losses
    assert sorted(losses, key=losses.get) == line[::-1]


def test_a_mask_that_one_group_alone_likes_is_not_believed(space):
    """Two neighbours, scored on the other group, say that the best of the first is an accident."""
    observed = {(0, 5, 10): (0, -2.0), (0, 5, 9): (1, 0.0), (0, 5, 11): (1, 0.0), (0, 12, 17): (0, -1.0)}
    observed |= {(0, 12, 16): (1, -1.5), (0, 12, 18): (1, -1.5), (0, 2, 3): (0, 0.5), (0, 2, 4): (1, 0.5)}
    groups = {Trial(slots, group): loss for slots, (group, loss) in observed.items()}
    losses = Surrogate(space(20, 3, groups=2), "velocity", groups).losses
    assert min(losses, key=losses.get)[1] == 12
    assert min(observed, key=lambda slots: observed[slots][1]) == (0, 5, 10)


def test_losses_of_one_group_are_as_they_were(space):
    observed = {(0, 5, 10 + k): loss for k, loss in enumerate((-0.3, math.inf, 4.0))}
    assert Surrogate(space(20, 3), "velocity", trials(observed)).losses == observed
