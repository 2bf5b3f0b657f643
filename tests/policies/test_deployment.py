"""Profiles with settings of the user's own."""

import pytest

from budc.policies.deployment import deployed
from budc.policies.profile import load_profile
from budc.schema.errors import UsageError


@pytest.mark.parametrize("name", ["wan2.1", "wan2.1-14b", "wan2.2"])
def test_wan_is_deployed_with_its_long_negative_prompt(name):
    assert load_profile(name).prompts.negative.startswith("色调艳丽，过曝，静态，")


def test_a_negative_prompt_takes_the_place_of_the_profile_s():
    profile = load_profile("wan2.1")
    assert deployed(profile) == profile
    assert deployed(profile, negative="dark").prompts.negative == "dark"
    assert deployed(profile, negative="").prompts.negative == ""


def test_a_model_without_a_negative_prompt_takes_none():
    with pytest.raises(UsageError, match=r"--negative: flux-nano has no negative prompt .*distilled"):
        deployed(load_profile("flux-nano"), negative="dark")


@pytest.mark.parametrize(
    "text", ["a\nb", "x" * 8193, "a\u202eb", "\x00"], ids=["lines", "long", "turned", "nul"]
)
def test_a_negative_prompt_that_an_artifact_cannot_hold_is_refused(text):
    with pytest.raises(UsageError, match="--negative: an artifact cannot record it"):
        deployed(load_profile("wan2.1"), negative=text)
