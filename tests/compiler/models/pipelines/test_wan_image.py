"""Wan2.1 image to video, end to end on a tiny random folder: an image is seen through CLIP and through the VAE."""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from elsewhere import elsewhere, here, moved  # noqa: E402
from msgspec.structs import replace  # noqa: E402
from pictures import write_picture, write_prompts  # noqa: E402

import budc  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_samples  # noqa: E402
from budc.compiler.evaluation.replay import ReplayRequest, replay  # noqa: E402
from budc.compiler.models.fit import check_fit  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.models.pipelines import text, wan_image  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.compiler.rollouts.policies import full_policy  # noqa: E402
from budc.policies.conditioning_images import open_image, sample_image  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.policies.samples import Sample  # noqa: E402
from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.runtimes.sampling.loading import loading  # noqa: E402
from budc.schema.errors import CalibrationMismatch, UnsupportedModel, UsageError  # noqa: E402

CPU = torch.device("cpu")
BRANCHES = ("cond", "uncond")


@pytest.fixture(scope="module")
def model(image_to_video_profile: str, image_to_video_folder: Path) -> Any:
    return load_model(load_profile(image_to_video_profile), image_to_video_folder, CPU)


@pytest.fixture
def pipe(image_to_video_folder: Path) -> Any:
    loaded = diffusers.WanImageToVideoPipeline.from_pretrained(image_to_video_folder)
    loaded.set_progress_bar_config(disable=True)
    loaded.scheduler = diffusers.UniPCMultistepScheduler.from_config(loaded.scheduler.config, flow_shift=3.0)
    return loaded


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Two samples with pictures of other sizes than the output's."""
    sizes = [(20, 14), (64, 96)]
    images = [
        sample_image(write_picture(tmp_path / f"sample-{seed}.png", seed, size), "test")
        for seed, size in enumerate(sizes)
    ]
    return [Sample("a red box", "dark", 5, images[0]), Sample("an old boat", "", 6, images[1])]


def deployed(pipe: Any, sample: Sample, output: str = "latent", **options: Any) -> Any:
    assert sample.image is not None
    settings = {
        "image": open_image(sample.image), "prompt": sample.prompt, "negative_prompt": sample.negative, "height": 32,
        "width": 48, "num_frames": 5, "num_inference_steps": 6, "guidance_scale": 5.0, "max_sequence_length": 8,
        "generator": torch.Generator().manual_seed(sample.seed), "output_type": output,
    }  # fmt: skip
    return pipe(**settings | options).frames


@pytest.fixture(scope="module")
def artifact(
    image_to_video_profile: str, image_to_video_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A policy that was searched on two images and measured on one, whose prompt files lie beside it."""
    folder = tmp_path_factory.mktemp("artifact")
    request = CompileRequest(
        model=image_to_video_profile,
        weights=image_to_video_folder,
        calibration=write_prompts(folder, "cal.csv", {"a red box": 1, "a blue ring": 2}),
        held_out=write_prompts(folder, "held.csv", {"an old boat": 4}),
        out=folder / "i2v.budc.json",
        budget="3",
        search="dp",
    )
    (artifact,) = compile_artifacts(request.resolve())
    return artifact


def test_the_full_rollout_is_the_pipeline_bit_for_bit(model: Any, pipe: Any, samples: list[Sample]) -> None:
    state = torch.get_rng_state()
    conditions, sampler = encode_samples(model, samples), model.sampler(6)
    assert torch.equal(torch.get_rng_state(), state)
    # Four channels of a mask and sixteen of latents, of 2 × 4 × 6 cells; a class and 2 × 2 patches.
    assert conditions.embeddings["cond"]["first_frame"].shape == (2, 20, 2, 4, 6)
    assert conditions.embeddings["uncond"]["image"].shape == (2, 5, 16)
    for index, sample in enumerate(samples):
        part = conditions.part(index, index + 1)
        latents = PipelineRollout(model).run(full_policy(6, BRANCHES), sampler, part)
        assert torch.equal(latents, deployed(pipe, sample))
    other = Sample(samples[0].prompt, "dark", 5, samples[1].image)
    assert not torch.allclose(deployed(pipe, samples[0]), deployed(pipe, other), atol=1e-3)


def test_half_precision_is_the_pipeline_s_too(
    image_to_video_profile: str, image_to_video_folder: Path, samples: list[Sample]
) -> None:
    profile = replace(load_profile(image_to_video_profile), dtype="bfloat16")
    half = load_model(profile, image_to_video_folder, CPU)
    pipe = budc.load_pipeline(profile, weights=image_to_video_folder, device="cpu")
    assert (pipe.image_encoder.dtype, pipe.transformer.dtype) == (torch.float32, torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    conditions = encode_samples(half, samples[:1])
    latents = PipelineRollout(half).run(full_policy(6, BRANCHES), half.sampler(6), conditions)
    assert torch.equal(latents, deployed(pipe, samples[0]).to(latents.dtype))


def test_an_artifact_runs_as_it_was_rolled_out(
    artifact: Any, model: Any, pipe: Any, samples: list[Sample]
) -> None:
    document = artifact.document
    assert [image.role for image in document.images] == ["first-frame"]
    negative = document.sampler.negative_prompt
    assert negative is not None
    assert negative.text == model.profile.prompts.negative
    sample = samples[0]._replace(negative=negative.text)
    expected = PipelineRollout(model).run(document.policy, document.sampler, encode_samples(model, [sample]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with budc.applied(pipe, artifact.path, allow_unsigned=True) as applied:
            assert torch.equal(deployed(pipe, sample), expected)
            assert applied.uncalibrated == ()
            with pytest.raises(CalibrationMismatch, match=r"images: .* first-frame, this run has none"):
                pipe(prompt="a red box", negative_prompt=negative.text)
            with pytest.raises(CalibrationMismatch, match="this run has first-frame, last-frame") as caught:
                deployed(pipe, sample, last_image=open_image(samples[1].image))
            assert caught.value.remedy == "leave out last_image"
            pipe.vae.to(torch.bfloat16)
            with pytest.raises(CalibrationMismatch, match=r"dtype of vae: .* float32, this run has bfloat16"):
                deployed(pipe, sample)
            pipe.vae.to(torch.float32)
        with (
            budc.applied(pipe, replace(document, images=[]), allow_unsigned=True),
            pytest.raises(CalibrationMismatch, match=r"images: .* for none, this run has first-frame"),
        ):
            deployed(pipe, sample)
    assert not torch.allclose(deployed(pipe, sample), expected, rtol=1e-3)


def test_a_report_is_replayed_on_the_same_images(
    artifact: Any, image_to_video_folder: Path, tmp_path: Path
) -> None:
    held_out = artifact.path.parent / "held.csv"
    pairs = replay(ReplayRequest(artifact.document, image_to_video_folder, prompts=held_out, device="cpu"))
    assert [pair.reported.name for pair in pairs] == ["latent-mse", "psnr"]
    other = write_prompts(tmp_path, "held.csv", {"an old boat": 5})
    with pytest.raises(UsageError, match="was not measured on the first 1 of"):
        replay(ReplayRequest(artifact.document, image_to_video_folder, prompts=other, device="cpu"))


def test_frames_are_the_pipeline_s(model: Any, pipe: Any, samples: list[Sample]) -> None:
    latents = deployed(pipe, samples[0])
    frames = model.adapter.decoder(model.folder, model.profile, CPU)(latents)
    assert frames.shape == (1, 3, 5, 32, 48)
    torch.testing.assert_close(frames.transpose(1, 2), deployed(pipe, samples[0], "pt"))


def test_an_image_that_has_changed_or_is_missing_is_refused(model: Any, samples: list[Sample]) -> None:
    with pytest.raises(UsageError, match="the sample 'a house' has no image"):
        encode_samples(model, [Sample("a house", "", 1)])
    assert samples[0].image is not None
    write_picture(Path(samples[0].image.path), seed=7)
    with pytest.raises(UsageError, match=r"sample-0\.png: the image has changed since the prompts were read"):
        encode_samples(model, samples)


def test_encoders_take_turns_elsewhere_and_what_they_make_is_here(
    model: Any, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encode_samples(model, samples).embeddings["cond"]

    @contextmanager
    def loading_here(folder: Path) -> Iterator[None]:
        with here(), loading(folder):
            yield

    for module in (text, wan_image):
        monkeypatch.setattr(module, "loading", loading_here)
    with elsewhere():
        made = encode_samples(moved(model), samples).embeddings["cond"]
    for name, tensor in made.items():
        assert tensor.device == CPU
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_folders_of_models_that_see_more_than_a_first_frame_are_refused(
    model: Any, image_to_video_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(image_to_video_folder, folder)
    for path, change, message in [
        ("transformer/config.json", {"pos_embed_seq_len": 10}, "sees a first and a last frame"),
        ("model_index.json", {"expand_timesteps": True}, "a timestep for each token, is not supported"),
    ]:
        whole = (folder / path).read_text()
        (folder / path).write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(UnsupportedModel, match=message):
            check_fit(model.profile, folder)
        (folder / path).write_text(whole)
