"""Profiles with settings of the user's own."""

import pytest

from budc.policies.deployment import Deployment
from budc.policies.profile import load_profile
from budc.schema.errors import UsageError


def deployed(name, **settings):
    return Deployment(**settings).deployed(load_profile(name))


@pytest.mark.parametrize("name", ["wan2.1", "wan2.1-14b", "wan2.2"])
def test_wan_is_deployed_with_its_long_negative_prompt(name):
    assert load_profile(name).prompts.negative.startswith("色调艳丽，过曝，静态，")


def test_settings_take_the_place_of_the_profile_s():
    assert deployed("wan2.1") == load_profile("wan2.1")
    settings = {
        "height": 720,
        "width": 1280,
        "frames": 33,
        "text_tokens": 256,
        "guidance": 3.0,
        "dtype": "float16",
    }
    profile = deployed("wan2.1", **settings, scheduler="DPMSolverMultistepScheduler", negative="dark")
    assert {name: getattr(profile, name) for name in settings} == settings
    assert (profile.scheduler, profile.prompts.negative) == ("DPMSolverMultistepScheduler", "dark")
    assert deployed("wan2.1", negative="").prompts.negative == ""
    assert deployed("z-image", guidance=0.5).guidance == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wan2.1", {"height": 0}, "--height: is 0, expected 1 to 65536"),
        ("flux-nano", {"frames": 5}, "--frames: flux-nano makes images"),
        ("wan2.1", {"guidance": 1.0}, "--guidance: is 1, expected above 1, up to 1000"),
        ("z-image", {"guidance": 0.0}, "--guidance: is 0, expected above 0, up to 1000"),
        ("wan2.1", {"guidance": float("nan")}, "--guidance: is nan"),
        ("flux-nano", {"guidance": 1e6}, r"--guidance: is 1e\+06, expected at most 1000"),
        ("z-image-turbo", {"guidance": 3.0}, "--guidance: z-image-turbo is not guided"),
        ("wan2.1", {"scheduler": "EulerDiscreteScheduler"}, "--scheduler: 'EulerDiscreteScheduler' is none"),
        ("flux.1-dev", {"text_tokens": 513}, "--text-tokens: is 513, expected 1 to 512"),
        ("wan2.1-i2v-14b-480p", {"text_tokens": 256}, "--text-tokens: is 256, .* takes 512 alone"),
        ("qwen-image", {"text_tokens": 256}, "--text-tokens: qwen-image takes text of any length"),
        ("flux-nano", {"negative": "dark"}, "--negative: flux-nano has no negative prompt .*distilled"),
    ],
    ids=str,
)
def test_a_setting_that_the_model_does_not_have_is_refused(name, settings, message):
    with pytest.raises(UsageError, match=message):
        deployed(name, **settings)


@pytest.mark.parametrize(
    "text", ["a\nb", "x" * 8193, "a\u202eb", "\x00"], ids=["lines", "long", "turned", "nul"]
)
def test_a_negative_prompt_that_an_artifact_cannot_hold_is_refused(text):
    with pytest.raises(UsageError, match="--negative: an artifact cannot record it"):
        deployed("wan2.1", negative=text)
