import random

import pytest

from budc.compiler.search import ALGORITHMS
from budc.compiler.search.nearby import ROLLOUTS, candidates_of_nearby
from budc.schema.errors import UsageError

KNOWN = ((0, 10, 20, 30), (0, 12, 24, 36))


def off(candidate, target):
    return sum(abs(a - b) for a, b in zip(candidate.mask.compute_steps, target, strict=True))


def test_schedules_come_first_and_then_a_few_masks_with_the_better_payload(run, space):
    box = space(40, 4, published_masks=KNOWN)
    winner, seen = run(
        "nearby", box, lambda found: 0.2 * off(found, (0, 13, 24, 35)) + (found.payload == "velocity")
    )
    assert [found.mask.compute_steps for found in seen[:4:2]] == list(KNOWN)
    assert len(seen) == 4 + ROLLOUTS == candidates_of_nearby(box)
    assert {found.payload for found in seen[4:]} == {winner.payload} == {"trunk-residual"}


def test_what_is_nearly_right_becomes_better(run, space):
    target = (0, 13, 23, 38)
    winner, seen = run("nearby", space(40, 4, published_masks=KNOWN), lambda found: 0.2 * off(found, target))
    assert off(winner, target) < min(off(found, target) for found in seen[:4]) == 4


def test_where_nothing_is_better_the_schedule_stays(run, space):
    winner, _ = run("nearby", space(40, 4, published_masks=KNOWN), lambda found: 0.2 * off(found, KNOWN[1]))
    assert winner.mask.compute_steps == KNOWN[1]


def test_a_space_may_have_fewer_masks_than_it_would_try(run, space):
    _, seen = run(
        "nearby", space(4, 3, published_masks=((0, 1, 2),)), lambda found: found.mask.compute_steps[2]
    )
    assert {found.mask.compute_steps for found in seen} == {(0, 1, 2), (0, 1, 3), (0, 2, 3)}


def test_without_a_schedule_there_is_nothing_to_be_near(space):
    with pytest.raises(UsageError, match="--search nearby: no schedule"):
        next(ALGORITHMS["nearby"].walk(space(10, 4), random.Random(0)))
