"""The models that ship: they load as any pipeline does, and generate what the caption says."""

import itertools
import re

import pytest
from diffusers import WanPipeline

from budc.policies.nano import clips, components
from budc.policies.nano.captions import MAX_TOKENS, captions
from budc.policies.nano.check import ATTRIBUTES, measure
from budc.policies.profile import find_weights, load_profile

GOALS = {"colour": 0.95, "shape": 0.85, "motion": 0.85}


def load(name):
    pipe = WanPipeline.from_pretrained(find_weights(load_profile(name), None))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_together_they_take_forty_megabytes_at_most_and_no_pickle():
    files = [
        path
        for name in components.MODELS
        for path in find_weights(load_profile(name), None).rglob("*")
        if path.is_file()
    ]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}


@pytest.mark.parametrize("name", components.MODELS)
def test_no_path_of_the_training_machine_is_in_them(name):
    for path in find_weights(load_profile(name), None).rglob("*.json"):
        assert not re.search(r'"(/\w|[A-Za-z]:\\\\|runs)', path.read_text(encoding="utf-8")), path


def test_the_siblings_share_all_but_the_transformer():
    nano, mini = (find_weights(load_profile(name), None) for name in components.MODELS)
    shared = [
        p.relative_to(nano)
        for part in ("vae", "text_encoder", "tokenizer", "scheduler")
        for p in (nano / part).iterdir()
    ]
    assert len(shared) >= 6
    for path in shared:
        assert (nano / path).read_bytes() == (mini / path).read_bytes(), path


@pytest.mark.parametrize("name", components.MODELS)
def test_eight_captions_are_generated_as_they_read(name):
    reading = measure(load(name), list(itertools.islice(captions("held-out", 77), 8)), 77, 50, 5.0)
    assert reading.rates["colour"] >= 7 / 8
    assert reading.rates["shape"] >= 6 / 8
    assert reading.rates["motion"] >= 6 / 8


@pytest.mark.parametrize("name", components.MODELS)
def test_the_card_has_figures_that_reach_the_goals(name):
    card = (find_weights(load_profile(name), None) / "README.md").read_text(encoding="utf-8")
    for attribute in ATTRIBUTES:
        assert f"| {attribute} |" in card
    for attribute, goal in GOALS.items():
        (rate,) = re.findall(rf"\| {attribute} \| ([\d.]+)%", card)
        assert float(rate) / 100 >= goal


@pytest.mark.slow
@pytest.mark.parametrize("name", components.MODELS)
def test_the_card_is_what_is_measured(name):
    card = (find_weights(load_profile(name), None) / "README.md").read_text(encoding="utf-8")
    count, seed = (int(re.search(rf"--{flag} (\d+)", card)[1]) for flag in ("captions", "seed"))
    reading = measure(load(name), list(itertools.islice(captions("held-out", seed), count)), seed, 50, 5.0)
    for attribute in ATTRIBUTES:
        (rate,) = re.findall(rf"\| {attribute} \| ([\d.]+)%", card)
        # Another processor may tip a caption or two.
        assert abs(float(rate) / 100 - reading.rates[attribute]) <= 2.01 / count


@pytest.mark.parametrize("name", components.MODELS)
def test_the_profile_says_what_the_recipe_trained(name):
    profile = load_profile(name)
    assert (profile.height, profile.width, profile.frames) == (clips.HEIGHT, clips.WIDTH, clips.FRAMES)
    assert (profile.text_tokens, profile.steps, profile.guidance) == (
        MAX_TOKENS,
        components.STEPS,
        components.GUIDANCE,
    )
    scheduler = load(name).scheduler
    assert type(scheduler).__name__ == profile.scheduler
    assert scheduler.config.flow_shift == components.FLOW_SHIFT
