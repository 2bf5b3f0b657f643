"""Along which directions coefficients are moved, and what a move makes of a policy."""

import pytest

from budc.compiler.rollouts.directions import Direction, directions, moved
from budc.schema.policy import Policy
from budc.schema.predictor import MAX_COEFFICIENT

BRANCHES = ("cond", "uncond")


def policy_of(**rows):
    return Policy.of("velocity", rows)


ROWS = [(), (1.0,), (), (1.2, -0.3), (1.4, -0.5), (), ()]


def test_each_term_of_each_run_of_reused_steps_is_a_direction():
    found = directions(policy_of(cond=ROWS, uncond=ROWS), BRANCHES)
    assert found == [
        Direction(1, 1, BRANCHES, 0),
        Direction(3, 4, BRANCHES, 0),
        Direction(3, 4, BRANCHES, 1),
    ]


def test_branches_move_together_where_they_reuse_the_same_steps():
    other = [(), (1.0,), (1.0,), (), (), (0.9, 0.1), ()]
    found = directions(policy_of(cond=ROWS, uncond=other), BRANCHES)
    assert Direction(1, 1, ("cond",), 0) in found
    assert Direction(1, 2, ("uncond",), 0) in found
    assert Direction(5, 5, ("uncond",), 1) in found
    assert len(found) == 3 + 3


def test_the_last_run_may_end_with_the_policy():
    found = directions(policy_of(cond=[(), (1.0,), (1.0,)]), ["cond"])
    assert found == [Direction(1, 2, ("cond",), 0)]


def test_a_policy_that_computes_every_step_has_none():
    assert directions(policy_of(cond=[(), (), ()]), ["cond"]) == []


def test_a_move_is_one_in_differences_of_what_is_cached():
    """r_0 - r_1 is the second term: a move along it adds as much to the newest as it takes from the one before."""
    policy = policy_of(cond=ROWS, uncond=ROWS)
    change = moved(
        policy, BRANCHES, [(Direction(3, 4, BRANCHES, 1), 0.25), (Direction(1, 1, ("cond",), 0), 0.5)]
    )
    rows = change.for_branch("cond").predictor
    assert rows[1] == pytest.approx((1.5,))
    assert rows[3] == pytest.approx((1.45, -0.55))
    assert rows[4] == pytest.approx((1.65, -0.75))
    assert tuple(change.for_branch("uncond").predictor[1]) == (1.0,)
    assert change.for_branch("uncond").predictor[4] == pytest.approx((1.65, -0.75))
    assert moved(policy, BRANCHES, []) == policy


def test_coefficients_stay_within_what_a_policy_may_hold():
    policy = policy_of(cond=ROWS)
    far = moved(policy, ["cond"], [(Direction(3, 4, ("cond",), 0), 1e9)])
    assert far.for_branch("cond").predictor[3][0] == MAX_COEFFICIENT
