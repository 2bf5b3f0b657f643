import itertools
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from budc.compiler.fitting.gram import segment_errors
from budc.compiler.search import ALGORITHMS
from budc.compiler.search.dp import shortest_path, step_weights
from budc.schema.errors import UsageError


def cost(path, errors, weights=None):
    """The reuse errors of a mask, step by step."""
    weights = weights or [1] * len(errors)
    total = 0.0
    for k in range(len(errors)):
        before = [step for step in path if step <= k]
        if k not in path:
            last = before[-1]
            previous = before[-2] if len(before) > 1 else last
            total += weights[k] * errors[previous][last][k]
    return total


@given(st.integers(1, 9), st.data())
def test_it_is_the_best_of_all_masks(space, costs, steps, data):
    nfe = data.draw(st.integers(1, steps))
    errors = costs(steps, data.draw(st.integers(0, 10**6)))
    path = shortest_path(space(steps, nfe, errors={"velocity": errors}), "velocity")
    masks = ((0, *rest) for rest in itertools.combinations(range(1, steps), nfe - 1))
    assert path == min(masks, key=lambda mask: cost(mask, errors))


@given(st.integers(2, 9), st.data())
def test_it_is_the_best_of_all_masks_through_the_fixed_steps(space, costs, steps, data):
    nfe = data.draw(st.integers(2, steps))
    firsts = tuple(
        sorted(data.draw(st.sets(st.integers(1, steps - 1), min_size=1, max_size=min(3, nfe - 1))))
    )
    errors = costs(steps, data.draw(st.integers(0, 10**6)))
    path = shortest_path(space(steps, nfe, errors={"velocity": errors}, first_steps=firsts), "velocity")
    masks = ((0, *rest) for rest in itertools.combinations(range(1, steps), nfe - 1) if {*firsts} <= {*rest})
    assert path == min(masks, key=lambda mask: cost(mask, errors))


@given(st.integers(2, 9), st.sampled_from((0.5, 1.0, 2.0)), st.data())
def test_it_is_the_best_of_all_masks_where_errors_are_weighted_by_the_size_of_the_step(
    space, costs, steps, power, data
):
    nfe = data.draw(st.integers(1, steps))
    sizes = data.draw(st.tuples(*[st.floats(0.01, 1)] * steps))
    errors = costs(steps, data.draw(st.integers(0, 10**6)))
    box = space(steps, nfe, errors={"velocity": errors}, step_sizes=sizes)
    weights = [(size / (sum(sizes) / steps)) ** power for size in sizes]
    assert step_weights(box, power) == pytest.approx(weights)
    masks = ((0, *rest) for rest in itertools.combinations(range(1, steps), nfe - 1))
    least = min(cost(mask, errors, weights) for mask in masks)
    assert cost(shortest_path(box, "velocity", power), errors, weights) == pytest.approx(least)


def test_a_step_that_lowers_sigma_by_nothing_is_fixed_all_the_same(space, costs):
    box = space(6, 3, errors={"velocity": costs(6, 1)}, step_sizes=(1, 1, 1, 0, 1, 1), first_steps=(3,))
    assert 3 in shortest_path(box, "velocity", 2.0)


@pytest.mark.parametrize("sizes", [(), (0.0,) * 6])
def test_where_nothing_is_known_of_step_sizes_all_weigh_the_same(sizes, space):
    assert step_weights(space(6, 3, step_sizes=sizes), 2.0) == (1,) * 6


def test_of_equal_paths_the_first_is_taken(space):
    errors = [[[1.0] * 6] * 6] * 6
    assert shortest_path(space(6, 3, errors={"velocity": errors}), "velocity") == (0, 1, 2)


def test_a_jump_of_the_residuals_is_computed(space):
    """On a real error tensor: residuals that are constant but for one jump."""
    generator = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 64, generator=generator, dtype=torch.float64)
    residuals = torch.stack([before if step < 7 else after for step in range(12)])
    gram = (residuals @ residuals.T)[None]
    errors = {"trunk-residual": segment_errors(gram, 2).tolist()}
    assert shortest_path(space(12, 2, errors=errors), "trunk-residual") == (0, 7)


def test_the_better_payload_s_path_wins_after_one_rollout_each(run, space, costs):
    errors = {"trunk-residual": costs(10, 1), "velocity": costs(10, 2)}
    box = space(10, 4, errors=errors)
    for better in box.payloads:
        winner, seen = run("dp", box, lambda candidate, better=better: float(candidate.payload != better))
        assert winner.payload == better
        assert winner.mask.compute_steps == shortest_path(box, better)
        assert len(seen) == 2


def test_without_errors_it_is_refused(space):
    with pytest.raises(UsageError, match="reuse errors of the trunk-residual"):
        next(ALGORITHMS["dp"].propose(space(10, 4), random.Random(0)))
