import random

import pytest

from budc.compiler.search import ALGORITHMS
from budc.policies.profile import load_profile
from budc.policies.published_masks import masks_for
from budc.schema.errors import UsageError


def test_every_schedule_is_tried_once_with_every_payload_and_the_best_wins(run, space):
    schedules = ((0, 1, 5, 9), (0, 2, 4, 8))
    winner, seen = run(
        "known", space(10, 4, published_masks=schedules), lambda found: -found.mask.compute_steps[1]
    )
    assert [found.mask.compute_steps for found in seen] == [schedules[0]] * 2 + [schedules[1]] * 2
    assert [found.payload for found in seen] == ["trunk-residual", "velocity"] * 2
    assert winner == seen[2]


def test_a_profile_s_schedules_are_in_its_space(run, space):
    schedules = masks_for(load_profile("wan2.1-nano"), 20, 7)
    _, seen = run("known", space(20, 7, published_masks=schedules), lambda _: 0.0)
    assert {found.mask.nfe for found in seen} == {7}


def test_a_model_without_any_is_refused_and_told_which_have_some(space):
    with pytest.raises(UsageError) as caught:
        next(ALGORITHMS["known"].walk(space(10, 4), random.Random(0)))
    assert "FLUX.1-dev, Qwen-Image, Wan2.1-T2V-1.3B" in caught.value.remedy
