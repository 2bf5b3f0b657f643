from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from budc.policies.profile import load_profile, profile_names
from budc.policies.published_masks import masks_for, published_masks, published_models, scale_steps

WAN = {9: (0, 1, 2, 3, 5, 7, 20, 41, 49)}


@st.composite
def ascending(draw):
    """(steps, computed steps): a mask that computes step 0."""
    steps = draw(st.integers(1, 60))
    rest = draw(st.sets(st.integers(1, steps - 1))) if steps > 1 else set()
    return steps, (0, *sorted(rest))


@st.composite
def budgets(draw):
    """(steps, nfe)."""
    steps = draw(st.integers(1, 80))
    return steps, draw(st.integers(1, steps))


@given(ascending(), budgets())
def test_scaled_masks_ascend_strictly_from_the_first_step(published, wanted):
    (steps, computed), (wanted_steps, nfe) = published, wanted
    scaled = scale_steps(computed, steps, wanted_steps, nfe)
    assert len(scaled) == nfe
    assert scaled[0] == 0
    assert all(a < b for a, b in pairwise(scaled))
    assert scaled[-1] < wanted_steps


@given(ascending())
def test_a_mask_scaled_to_its_own_steps_and_nfe_is_unchanged(published):
    steps, computed = published
    assert scale_steps(computed, steps, steps, len(computed)) == computed


@given(ascending(), budgets(), st.data())
def test_later_steps_scale_to_later_steps(published, wanted, data):
    """Moving one step of a published mask later moves no step of the scaled one earlier."""
    (steps, computed), (wanted_steps, nfe) = published, wanted
    index = data.draw(st.integers(0, len(computed) - 1))
    after = computed[index + 1] if index + 1 < len(computed) else steps
    if index == 0 or computed[index] + 1 == after:
        return
    later = (*computed[:index], computed[index] + 1, *computed[index + 1 :])
    pairs = zip(
        scale_steps(computed, steps, wanted_steps, nfe),
        scale_steps(later, steps, wanted_steps, nfe),
        strict=True,
    )
    assert all(a <= b for a, b in pairs)


@given(budgets())
def test_the_last_step_stays_the_last(wanted):
    steps, nfe = wanted
    if nfe > 1:
        assert scale_steps((0, 10, 49), 50, steps, nfe)[-1] == steps - 1


def test_scaling_keeps_the_shape():
    assert scale_steps(WAN[9], 50, 25, 9) == (0, 1, 2, 3, 4, 5, 10, 20, 24)
    assert scale_steps(WAN[9], 50, 99, 9) == (0, 2, 4, 6, 10, 14, 40, 82, 98)
    assert scale_steps(WAN[9], 50, 50, 5) == (0, 2, 5, 20, 49)
    assert scale_steps((0, 1, 2, 3), 4, 10, 10) == tuple(range(10))


def test_models_of_a_family_share_the_masks_of_the_nearest_nfe():
    for name in ("wan2.1", "wan2.1-14b", "wan2.1-nano", "wan2.1-mini"):
        assert masks_for(load_profile(name), 50, 9) == (WAN[9],)
        (ten,) = masks_for(load_profile(name), 50, 10)
        assert ten == scale_steps(WAN[9], 50, 50, 10)
    eleven = masks_for(load_profile("wan2.1"), 50, 11)
    assert len(eleven) == 2, "9 and 13 are equally near"


def test_methods_that_agree_count_once():
    """FLUX.1-dev has four methods at every budget, which all fall together where every step is computed."""
    profile = replace(load_profile("wan2.1"), family="flux")
    assert len(masks_for(profile, 50, 13)) == 4
    assert masks_for(profile, 6, 6) == (tuple(range(6)),)


def test_a_model_without_published_masks_has_none():
    assert masks_for(replace(load_profile("wan2.1"), family="hunyuan"), 50, 10) == ()


def test_published_masks_agree_with_their_descriptions():
    published = published_masks()
    assert published_models() == ("FLUX.1-dev", "Qwen-Image", "Wan2.1-T2V-1.3B")
    assert (published.source.repository, published.source.licence) == (
        "nanguoyu/Golden-Path-Hypothesis",
        "MIT",
    )
    assert len(published.source.commit) == 40
    for mask in published.masks:
        assert mask.nfe == len(mask.compute_steps) == len(set(mask.compute_steps))
        assert list(mask.compute_steps) == sorted(mask.compute_steps)
        assert mask.compute_steps[0] == 0
        assert mask.compute_steps[-1] < published.steps


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("steps", [50, 12])
def test_every_profile_s_masks_have_the_nfe_asked_for(name, steps):
    for nfe in range(1, steps + 1):
        assert all(len(computed) == nfe for computed in masks_for(load_profile(name), steps, nfe))
