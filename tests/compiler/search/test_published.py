import random

import pytest

from budc.compiler.search import ALGORITHMS
from budc.policies.profile import load_profile
from budc.policies.published_masks import masks_for
from budc.schema.errors import UsageError


def test_every_published_mask_is_tried_once_with_every_payload_and_the_best_wins(run, space):
    masks = ((0, 1, 5, 9), (0, 2, 4, 8))
    winner, seen = run(
        "known", space(10, 4, published_masks=masks), lambda candidate: -candidate.mask.compute_steps[1]
    )
    assert [candidate.mask.compute_steps for candidate in seen] == [masks[0]] * 2 + [masks[1]] * 2
    assert [candidate.payload for candidate in seen] == ["trunk-residual", "velocity"] * 2
    assert winner == seen[2]


def test_a_profile_s_masks_are_in_its_space(run, space):
    masks = masks_for(load_profile("wan2.1-nano"), 20, 7)
    _, seen = run("known", space(20, 7, published_masks=masks), lambda _: 0.0)
    assert {candidate.mask.nfe for candidate in seen} == {7}


def test_a_model_without_any_is_refused_and_told_which_have_some(space):
    with pytest.raises(UsageError) as caught:
        next(ALGORITHMS["known"].propose(space(10, 4), random.Random(0)))
    assert "FLUX.1-dev, Qwen-Image, Wan2.1-T2V-1.3B" in caught.value.remedy
