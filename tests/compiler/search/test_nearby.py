import random

import pytest

from budc.compiler.search import ALGORITHMS
from budc.compiler.search.nearby import ROLLOUTS, candidates_of_nearby
from budc.schema.errors import UsageError

PUBLISHED = ((0, 10, 20, 30), (0, 12, 24, 36))


def off(candidate, target):
    return sum(abs(a - b) for a, b in zip(candidate.mask.compute_steps, target, strict=True))


def test_published_masks_come_first_and_then_a_few_masks_with_the_better_payload(run, space):
    box = space(40, 4, published_masks=PUBLISHED)
    winner, seen = run(
        "nearby",
        box,
        lambda candidate: 0.2 * off(candidate, (0, 13, 24, 35)) + (candidate.payload == "velocity"),
    )
    assert [candidate.mask.compute_steps for candidate in seen[:4:2]] == list(PUBLISHED)
    assert len(seen) == 4 + ROLLOUTS == candidates_of_nearby(box)
    assert {candidate.payload for candidate in seen[4:]} == {winner.payload} == {"trunk-residual"}


def test_a_mask_that_is_nearly_right_becomes_better(run, space):
    target = (0, 13, 23, 38)
    winner, seen = run(
        "nearby", space(40, 4, published_masks=PUBLISHED), lambda candidate: 0.2 * off(candidate, target)
    )
    assert off(winner, target) < min(off(start, target) for start in seen[:4]) == 4


def test_where_nothing_is_better_the_published_mask_wins(run, space):
    winner, _ = run(
        "nearby",
        space(40, 4, published_masks=PUBLISHED),
        lambda candidate: 0.2 * off(candidate, PUBLISHED[1]),
    )
    assert winner.mask.compute_steps == PUBLISHED[1]


def test_a_space_may_have_fewer_masks_than_it_would_try(run, space):
    _, seen = run(
        "nearby", space(4, 3, published_masks=((0, 1, 2),)), lambda candidate: candidate.mask.compute_steps[2]
    )
    assert {candidate.mask.compute_steps for candidate in seen} == {(0, 1, 2), (0, 1, 3), (0, 2, 3)}


def test_without_a_published_mask_it_is_refused(space):
    with pytest.raises(UsageError, match="--search nearby: no mask"):
        next(ALGORITHMS["nearby"].propose(space(10, 4), random.Random(0)))


@pytest.mark.parametrize(("prompts", "payload"), [(100, "trunk-residual"), (4, "velocity")])
def test_a_small_lead_on_few_prompts_does_not_decide_the_payload(prompts, payload, run, space):
    def loss(candidate):
        return 0.2 * off(candidate, PUBLISHED[0]) - 0.5 * (candidate.payload == "trunk-residual")

    winner, _ = run("nearby", space(40, 4, published_masks=PUBLISHED, prompts=prompts), loss)
    assert winner.payload == payload
