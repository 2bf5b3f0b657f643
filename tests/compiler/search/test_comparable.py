"""Losses of one group of prompts, and of several."""

import math

from budc.compiler.search.comparable import comparable_losses
from budc.compiler.search.moves import Trial

ONE, OTHER = (0, 3, 6), (0, 2, 5)


def test_losses_of_one_group_are_compared_as_they_are(space):
    losses = {
        "velocity": {Trial(ONE): -2.0, Trial(OTHER): math.inf},
        "trunk-residual": {Trial(ONE): -2.1},
    }
    assert comparable_losses(space(8, 3), losses) == {
        ("velocity", ONE): -2.0,
        ("velocity", OTHER): math.inf,
        ("trunk-residual", ONE): -2.1,
    }


def test_of_several_groups_a_mask_has_one_loss_and_a_payload_that_was_turned_down_none(space):
    scored = {Trial(ONE): -2.0, Trial(ONE, 1): -1.0, Trial(OTHER, 1): -3.0}
    compared = comparable_losses(
        space(8, 3, groups=2), {"velocity": scored, "trunk-residual": {Trial(ONE): -9.0}}
    )
    assert compared.keys() == {("velocity", ONE), ("velocity", OTHER)}
    assert compared["velocity", OTHER] < compared["velocity", ONE]


def test_what_is_not_finite_on_one_group_is_so_on_all(space):
    scored = {Trial(ONE): -2.0, Trial(ONE, 1): math.inf, Trial(OTHER, 1): -3.0}
    compared = comparable_losses(space(8, 3, groups=2), {"velocity": scored})
    assert compared["velocity", ONE] == math.inf
    assert math.isfinite(compared["velocity", OTHER])
