"""Pictures and their captions, CLIP's tokenizer, and the losses that the FLUX sibling is trained by."""

import itertools

import pytest
import torch

from budc.policies.nano.architectures import flux
from budc.policies.nano.data import pictures, stills
from budc.policies.nano.data.captions import BACKGROUNDS, COLOURS, SHAPES, SIZES, prompt_lines
from budc.policies.nano.data.pictures import PLACES, Picture
from budc.policies.nano.evaluation import reader
from budc.policies.nano.text import clip_tokenizer
from budc.policies.nano.text.tokenizer import build_tokenizer
from budc.policies.nano.training import flux_denoiser, flux_latents, flux_text, flux_vae
from budc.policies.profile import read_prompts

RED = Picture("red", "circle", "small", "left", "striped")


def take(split, count, seed=0):
    return list(itertools.islice(pictures.captions(split, seed), count))


def test_splits_are_disjoint_and_name_everything():
    texts = {split: {c.text for c in take(split, 600)} for split in ("train", "calibration", "held-out")}
    for first, second in itertools.combinations(texts, 2):
        assert not texts[first] & texts[second]
    for split in texts:
        seen = [c.scene for c in take(split, 600)]
        for attribute, values in flux_text.PICTURES.attributes.items():
            assert {getattr(picture, attribute) for picture in seen} == set(values)


@pytest.mark.parametrize(("split", "count"), [("calibration", 64), ("held-out", 128)])
def test_the_shipped_prompts_are_the_generators(split, count):
    shipped = read_prompts(f"prompts/nano-image-{split}.txt")
    assert shipped == prompt_lines(split, 0, count, pictures.captions)


def test_the_reader_reads_what_was_drawn():
    generator = torch.Generator().manual_seed(0)
    scenes = [
        Picture(COLOURS[i % 6], shape, SIZES[(i // 2) % 2], place, BACKGROUNDS[i % 2])
        for i, (shape, place) in enumerate(itertools.product(SHAPES, PLACES))
    ]
    for scene, picture in zip(scenes, stills.batch(scenes, generator), strict=True):
        assert reader.read_picture((picture + 1) / 2) == scene


def test_the_reader_says_when_there_is_nothing_to_read():
    seen = reader.read_picture(torch.full((3, 64, 64), 0.4))
    assert (seen.colour, seen.shape, seen.size, seen.place) == (reader.UNREADABLE,) * 4


def test_every_word_is_one_token_of_either_tokenizer_and_captions_fit():
    clip, t5 = clip_tokenizer.build_clip_tokenizer(), build_tokenizer(pictures.vocabulary())
    for word in pictures.vocabulary():
        assert len(clip(word).input_ids) == 3, word
        assert len(t5(word).input_ids) == 2, word
    texts = [caption.text for caption in take("train", 2000)]
    assert max(len(ids) for ids in clip(texts).input_ids) <= clip_tokenizer.CLIP_TOKENS
    assert max(len(ids) for ids in t5(texts).input_ids) <= pictures.MAX_TOKENS
    assert clip("A RED Circle").input_ids == clip("a red circle").input_ids
    assert len(clip("zeppelin").input_ids) > 3, "unknown words fall apart into bytes"


def test_a_later_merge_leaves_earlier_words_whole():
    merges = {
        pair: rank for rank, pair in enumerate(clip_tokenizer.merges_for(["magic", "circle", "icicle"]))
    }
    for word in ("magic", "circle", "icicle"):
        assert clip_tokenizer.pieces(word, merges) == [word + "</w>"]
    assert clip_tokenizer.pieces("cm", merges) == ["c", "m</w>"]


def test_the_pooled_state_follows_the_text_before_the_end_token():
    tokenizer = clip_tokenizer.build_clip_tokenizer()
    encoder = flux.build_clip(tokenizer, 0).eval()
    with torch.no_grad():
        red, blue = flux_text.pooled_state(encoder, tokenizer, ["a red circle", "a blue circle"])
    assert red.shape == (flux.POOLED_WIDTH,)
    assert not torch.allclose(red, blue)


@pytest.fixture(scope="module")
def data():
    clip, t5 = clip_tokenizer.build_clip_tokenizer(), build_tokenizer(pictures.vocabulary())
    encoders = flux_text.TextEncoders(flux.build_clip(clip, 0), flux.build_t5(t5, 0), clip, t5)
    latents = torch.randn(4, 16, 64, generator=torch.Generator().manual_seed(0)).half()
    return flux_denoiser.TrainingData(latents, [RED] * 4, encoders, 0)


@pytest.fixture
def transformer():
    return flux.build_transformer(0)


def value(loss, seed):
    return float(loss(0, torch.Generator().manual_seed(seed)).detach())


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_the_teacher_learns_velocity_from_noise(data, transformer):
    loss = flux_denoiser.teacher_loss(transformer, data)
    first = loss(0, torch.Generator().manual_seed(5))
    first.backward()
    assert 0.5 < float(first.detach()) < 10
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in transformer.parameters())
    assert value(loss, 5) == float(first.detach())
    assert value(loss, 6) != float(first.detach())


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_the_student_regresses_onto_the_guided_velocity(data, transformer, monkeypatch):
    seen = []
    plain = flux_denoiser.velocity

    def recorded(network, *arguments):
        output = plain(network, *arguments)
        seen.append((arguments[3], arguments[4], output.detach()))
        return output

    monkeypatch.setattr(flux_denoiser, "velocity", recorded)
    loss = flux_denoiser.student_loss(transformer, flux.build_transformer(1), data)
    measured = value(loss, 0)
    (no_guidance, texts, cond), (_, empty, uncond), (scale, same, student) = seen
    assert all(torch.equal(texts[name], same[name]) for name in texts)
    assert torch.equal(empty["pooled_projections"], data.empty["pooled_projections"].expand(32, -1))
    assert not torch.equal(texts["pooled_projections"], empty["pooled_projections"])
    assert set(no_guidance.tolist()) == {1.0}
    assert flux_denoiser.SCALES[0] <= float(scale.min()) < float(scale.max()) <= flux_denoiser.SCALES[1]
    target = uncond + scale[:, None, None] * (cond - uncond)
    assert measured == pytest.approx(float((student - target).square().mean()))


def test_latents_are_packed_as_the_pipeline_packs_them():
    from diffusers import FluxPipeline

    latents = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flux_latents.pack(latents), FluxPipeline._pack_latents(latents, 2, 16, 8, 8))
    ids = FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32)
    assert torch.equal(flux_latents.positions(4, 4), ids)


def test_the_vae_is_scaled_to_unit_latents():
    vae = flux.build_vae(0).eval()
    flux_vae.standardise(vae, 0, 64)
    frames, _ = flux_vae.draw("train", 0, 64)
    with torch.no_grad():
        means = vae.encode(frames).latent_dist.mean
    scaled = (means - vae.config.shift_factor) * vae.config.scaling_factor
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-2)
    assert float(scaled.std()) == pytest.approx(1, abs=1e-2)
