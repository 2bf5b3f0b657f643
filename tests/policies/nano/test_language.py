"""Captions and clips, and that the reader reads from a clip what its caption says."""

import itertools

import pytest
import torch

from budc.policies.nano.data import clips
from budc.policies.nano.data.captions import (
    BACKGROUNDS,
    COLOURS,
    MAX_TOKENS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    captions,
    prompt_lines,
    split_of,
    vocabulary,
)
from budc.policies.nano.evaluation import reader
from budc.policies.nano.text.tokenizer import build_tokenizer
from budc.policies.profile import read_prompts


def take(split, count, seed=0):
    return list(itertools.islice(captions(split, seed), count))


def test_splits_are_disjoint_by_text():
    texts = {split: {c.text for c in take(split, 2000)} for split in ("train", "calibration", "held-out")}
    for first, second in itertools.combinations(texts, 2):
        assert not texts[first] & texts[second]
    assert all(split_of(text) == split for split, members in texts.items() for text in members)


def test_captions_are_repeatable_by_seed():
    assert take("train", 20, seed=3) == take("train", 20, seed=3)
    assert take("train", 20, seed=3) != take("train", 20, seed=4)


def test_every_attribute_is_named_in_every_split():
    for split in ("train", "calibration", "held-out"):
        scenes = [caption.scene for caption in take(split, 600)]
        assert {s.colour for s in scenes} == set(COLOURS)
        assert {s.shape for s in scenes} == set(SHAPES)
        assert {s.size for s in scenes} == set(SIZES)
        assert {s.motion for s in scenes} == set(MOTIONS)
        assert {s.background for s in scenes} == set(BACKGROUNDS)


@pytest.mark.parametrize(("split", "count"), [("calibration", 64), ("held-out", 128)])
def test_the_shipped_prompts_are_the_generators(split, count):
    assert read_prompts(f"prompts/nano-{split}.txt") == prompt_lines(split, 0, count)


def test_every_word_is_one_token_and_captions_fit():
    tokenizer = build_tokenizer()
    for word in vocabulary():
        assert len(tokenizer(word).input_ids) == 2, word
    assert max(len(tokenizer(c.text).input_ids) for c in take("train", 3000)) <= MAX_TOKENS
    assert tokenizer("A RED Circle").input_ids == tokenizer("a red circle").input_ids
    assert len(tokenizer("zeppelin").input_ids) > 2, "unknown words fall apart into characters"


def test_clips_are_repeatable_and_in_range():
    scene = Scene("red", "circle", "small", "left", "striped")
    clip = clips.render(scene, torch.Generator().manual_seed(1))
    assert clip.shape == (3, clips.FRAMES, clips.HEIGHT, clips.WIDTH)
    assert float(clip.min()) >= -1
    assert float(clip.max()) <= 1
    assert torch.equal(clip, clips.render(scene, torch.Generator().manual_seed(1)))
    assert not torch.equal(clip, clips.render(scene, torch.Generator().manual_seed(2)))


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="star"):
        clips.distance("star", torch.zeros(1), torch.zeros(1), 1.0)


def test_the_reader_reads_what_was_drawn():
    """Every combination of shape, motion, size, colour, background at least pairwise, all attributes right."""
    generator = torch.Generator().manual_seed(0)
    scenes = [
        Scene(COLOURS[i % 6], shape, SIZES[(i // 2) % 2], motion, BACKGROUNDS[i % 2])
        for i, (shape, motion) in enumerate(itertools.product(SHAPES, MOTIONS))
    ]
    for scene, clip in zip(scenes, clips.batch(scenes, generator), strict=True):
        assert reader.read((clip + 1) / 2) == scene


def test_the_reader_says_when_there_is_nothing_to_read():
    grey = torch.full((3, clips.FRAMES, clips.HEIGHT, clips.WIDTH), 0.4)
    noise = torch.rand(3, clips.FRAMES, clips.HEIGHT, clips.WIDTH, generator=torch.Generator().manual_seed(0))
    for frames in (grey, noise):
        seen = reader.read(frames)
        assert (seen.colour, seen.shape, seen.motion) == (reader.UNREADABLE,) * 3


def test_a_still_shape_has_no_motion():
    clip = clips.render(Scene("blue", "square", "large", "up", "striped"), torch.Generator().manual_seed(0))
    still = clip[:, :1].expand(-1, clips.FRAMES, -1, -1)
    assert reader.read((still + 1) / 2).motion == reader.UNREADABLE
