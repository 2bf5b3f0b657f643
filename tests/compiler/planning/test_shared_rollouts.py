"""What a search of one budget shares with those of others, beside what compiles with --quality were counted to take."""

import statistics

import pytest

from budc.compiler.planning.dry_run import dry_run, given_to
from budc.compiler.planning.shared_rollouts import unshared
from budc.compiler.selection.effort import effort
from budc.policies.profile import load_profile

COUNTED = [
    # An untrained network.
    (12, [3, 2, 1], [0.26, 0.0]),
    (12, [3, 5, 7, 6], [0.84, 0.81, 0.62]),
    (20, [4, 3], [0.45]),
    (20, [4, 6, 16, 10, 9], [0.85, 1.0, 0.86, 0.66]),
    # wan2.1-nano.
    (30, [5, 7, 6], [0.95, 0.68]),
    (50, [7, 6, 5], [0.88, 0.91]),
    (50, [7, 4, 3], [0.93, 0.92]),
    (50, [7, 9, 33, 17, 12, 14, 15, 16], [0.96, 1.04, 0.97, 0.96, 0.87, 0.89, 0.79]),
]
"""Steps, the budgets that were tried with the fast effort, and the share of what each search after the first would have
taken alone that it took, in forwards."""


def _given(steps, nfe):
    return given_to(load_profile("wan2.1-nano"), nfe, steps)


def _share(steps, nfe, earlier):
    alone = {
        budget: dry_run(_given(steps, budget), "joint", effort("fast").share(budget)).expected
        for budget in (nfe, *earlier)
    }
    return unshared(_given(steps, nfe), alone[nfe], {budget: alone[budget] for budget in earlier})


def test_searches_share_about_what_was_counted():
    differences = []
    for steps, budgets, shares in COUNTED:
        for index, share in enumerate(shares, 1):
            differences.append(_share(steps, budgets[index], budgets[:index]) - share)
    assert len(differences) == 23
    assert statistics.fmean(map(abs, differences)) < 0.08
    assert max(map(abs, differences)) < 0.22


def test_a_search_alone_shares_nothing():
    assert _share(50, 10, []) == 1


def test_what_was_rolled_out_whole_is_not_rolled_out_again():
    every = 2 * (1 + 5 + 10)
    assert unshared(_given(6, 3), every, {3: every}) == pytest.approx(0)
    # Of two evaluations the first and the second are known, the third is not.
    assert unshared(_given(6, 3), every, {2: 2 * (1 + 5)}) == pytest.approx(20 / every)
