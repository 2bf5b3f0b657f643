"""The arithmetic of the rivals, against cases that can be worked out by hand."""

import itertools
import random

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.comparison import magcache, meancache, shortest_path, taylorseer  # noqa: E402
from budc.compiler.comparison.dynamic import bisect  # noqa: E402


@pytest.mark.parametrize("order", [1, 2])
def test_taylorseer_is_exact_on_polynomials_of_its_order_at_even_intervals(order):
    # Backward differences in place of derivatives are exact in the first order, not in the second.
    computed = [20, 15, 10]
    row = taylorseer.coefficients(23, computed, order)
    assert len(row) == order + 1
    assert sum(row) == pytest.approx(1)
    linear = sum(c * (3 * step + 2) for c, step in zip(row, computed, strict=False))
    assert linear == pytest.approx(3 * 23 + 2)


def test_taylorseer_second_order_by_hand():
    # f' = (r0 - r1) / 5, f'' = (r0 - 2 r1 + r2) / 25, forecast r0 + 3 f' + 9 f'' / 2.
    assert taylorseer.coefficients(23, [20, 15, 10], 2) == pytest.approx((1 + 0.6 + 0.18, -0.6 - 0.36, 0.18))


@pytest.mark.parametrize("nfe", range(2, 26))
def test_taylorseer_spends_exactly_the_budget(nfe):
    interval, leading, computed = taylorseer.schedule(50, nfe)
    assert len(computed) == nfe
    assert len(set(computed)) == nfe
    assert computed[0] == 0
    assert all(b - a == interval for a, b in itertools.pairwise(computed[leading - 1 :]))


@pytest.mark.parametrize("join", [shortest_path.add, shortest_path.largest_first])
def test_shortest_path_is_the_best_of_all_paths(join):
    rng, steps, nfe = random.Random(3), 9, 4
    costs = [[rng.random() if b > a else float("inf") for b in range(steps + 1)] for a in range(steps)]

    def cost(path):
        total = ()
        for a, b in zip(path, (*path[1:], steps), strict=True):
            total = join(total, costs[a][b])
        return total

    paths = [(0, *rest) for rest in itertools.combinations(range(1, steps), nfe - 1)]
    assert shortest_path.shortest(costs, nfe, join) == min(paths, key=cost)


def test_reuse_edges_add_up_what_is_skipped():
    errors = torch.tensor([[0.0, 1, 4, 9], [1, 0, 1, 4], [4, 1, 0, 1], [9, 4, 1, 0]])
    costs = shortest_path.edges(errors)
    assert costs[0][1:] == [0, 1, 5, 14]
    assert costs[2][3:] == [0, 1]


def test_magcache_computes_when_the_ratio_has_drifted_too_far():
    # From step 0 on: ratios .9, .81, .729; errors .1, .29, .561.
    assert magcache.schedule([0.9] * 4, 0.5) == [True, False, False, True, False]
    assert magcache.schedule([1.0] * 4, 0.5) == [True, False, False, False, False]


def test_bisection_finds_the_threshold_of_a_falling_staircase():
    def mean_nfe(threshold):
        return 50 // (1 + threshold)

    assert mean_nfe(bisect(mean_nfe, 10, 50.0)) == 10


def test_meancache_is_exact_where_the_velocity_is_linear_in_sigma_and_the_step_is_half_as_long():
    # J is half the slope, because the average over a span is the velocity at its middle.
    sigmas = [1.0, 0.8, 0.6, 0.5]
    velocity = [torch.tensor(2 + 3 * sigma) for sigma in sigmas]
    state = [torch.tensor(2 * s + 1.5 * s * s) for s in sigmas]
    found = meancache.forecast(2, 2, state[:3], velocity[:2], sigmas)
    assert found.item() == pytest.approx((velocity[1] + 1.5 * (0.5 - 0.6)).item())
    repeated = meancache.forecast(
        2, 1, [state[0], torch.tensor(0.0), velocity[1] * -0.2], velocity[:2], sigmas
    )
    assert repeated.item() == pytest.approx(velocity[1].item())
