"""What the ONNX pipeline runs: batches, either kind of payload, plain runs and runs that are ended."""

import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from onnx_pipelines import PROMPTS, opened, reusing_velocities  # noqa: E402

from budc.runtimes.onnxruntime.noise import seeded_noise  # noqa: E402
from budc.runtimes.onnxruntime.pipeline import (  # noqa: E402
    OnnxPipeline,
    UnsignedWarning,
)
from budc.runtimes.sampling.solvers import Scheduler  # noqa: E402
from budc.runtimes.testing import GOLDEN, STEPS  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402


def test_a_batch_is_its_samples_one_by_one(pipe: OnnxPipeline) -> None:
    noise = np.concatenate([seeded_noise((1, 16, 2, 8, 8), seed) for seed in (5, 6)])
    together = pipe.denoising_loop(2).run(pipe.encode(PROMPTS), noise)
    alone = [pipe.generate(prompt, seed=5 + i).latents for i, prompt in enumerate(PROMPTS)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.1


@pytest.mark.parametrize("name", ["three terms", "separate branches", "one evaluation"])
def test_the_velocity_can_be_what_is_reused(
    name: str, document: PolicyDocument, exported: Path, wan_folder: Path
) -> None:
    from diffusers import WanPipeline

    from budc.runtimes.diffusers.apply import applied

    changed = reusing_velocities(name, document)
    pipe = WanPipeline.from_pretrained(wan_folder)
    pipe.set_progress_bar_config(disable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with applied(pipe, changed, allow_unsigned=True, weights_dir=wan_folder):
            expected = pipe(
                PROMPTS[0], height=64, width=64, num_frames=5, max_sequence_length=32, guidance_scale=5.0,
                num_inference_steps=STEPS, generator=torch.Generator().manual_seed(3), output_type="latent",
            ).frames.numpy()  # fmt: skip
    actual = opened(changed, exported).generate(PROMPTS[0], seed=3).latents
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()
    residual = opened(GOLDEN[name].document(document), exported).generate(PROMPTS[0], seed=3).latents
    assert np.abs(actual - residual).max() > 1e-3


@pytest.mark.parametrize("steps", [4, STEPS])
def test_a_plain_run_is_the_pipeline_without_a_policy(
    steps: int, document: PolicyDocument, exported: Path, wan_folder: Path
) -> None:
    from diffusers import WanPipeline

    pipe = WanPipeline.from_pretrained(wan_folder)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPTS[0], height=64, width=64, num_frames=5, max_sequence_length=32, guidance_scale=5.0,
        num_inference_steps=steps, generator=torch.Generator().manual_seed(3), output_type="latent",
    ).frames.numpy()  # fmt: skip
    onnx = opened(document, exported)
    loop = onnx.plain_loop(steps)
    actual = loop.run(onnx.encode([PROMPTS[0]]), onnx.noise(3))
    assert loop.forwards == {"compute": 2 * steps}
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()


def test_steps_without_a_forward_are_taken_together(document: PolicyDocument, exported: Path) -> None:
    pipe = opened(reusing_velocities("three terms", document), exported)
    latents = pipe.generate(PROMPTS[0], seed=3).latents
    assert pipe.denoising_loop(1)._updates.count == pipe.denoising_loop(1).forwards["compute"] // 2 == 3
    steps: list[int] = []
    np.testing.assert_array_equal(pipe.generate(PROMPTS[0], seed=3, on_step=steps.append).latents, latents)
    assert steps == list(range(STEPS))


@pytest.mark.parametrize("payload", ["velocity", "trunk-residual"])
@pytest.mark.parametrize("name", ["three terms", "separate branches"])
def test_a_run_that_is_ended_has_the_latents_of_that_step(
    name: str, payload: str, document: PolicyDocument, exported: Path
) -> None:
    document = GOLDEN[name].document(document)
    if payload == "velocity":
        document = reusing_velocities(name, document)
    pipe = opened(document, exported)
    loop, scheduler = pipe.denoising_loop(1), Scheduler(document.sampler)
    latents = pipe.noise(3)
    for last in range(STEPS):
        ended = pipe.generate(PROMPTS[0], seed=3, on_step=lambda step, last=last: step != last).latents
        cond, uncond = loop.velocities.values()
        latents = scheduler.step(uncond + document.sampler.guidance * (cond - uncond), latents)
        np.testing.assert_allclose(ended, latents, atol=1e-5)
    np.testing.assert_array_equal(ended, pipe.generate(PROMPTS[0], seed=3).latents)


def test_what_an_earlier_run_left_in_a_slot_does_not_matter(document: PolicyDocument, exported: Path) -> None:
    pipe = opened(reusing_velocities("three terms", document), exported)
    latents = pipe.generate(PROMPTS[0], seed=3).latents
    velocities = pipe.denoising_loop(1)._buffers.velocities
    velocities.write(np.full(velocities.shape, np.nan, np.float32))
    np.testing.assert_array_equal(pipe.generate(PROMPTS[0], seed=3).latents, latents)


def test_frames_are_those_of_diffusers(pipe: OnnxPipeline, wan_folder: Path) -> None:
    from diffusers import WanPipeline

    latents = np.concatenate([seeded_noise((1, 16, 2, 8, 8), seed) for seed in (1, 2)])
    reference = WanPipeline.from_pretrained(wan_folder)
    with torch.no_grad():
        video = reference.vae.decode(torch.from_numpy(latents), return_dict=False)[0]
    expected = reference.video_processor.postprocess_video(video, output_type="np")
    np.testing.assert_allclose(pipe.decode(latents), expected, atol=1e-4)


def test_text_is_encoded_as_by_the_pipeline(pipe: OnnxPipeline, wan_folder: Path) -> None:
    from diffusers import WanPipeline

    reference = WanPipeline.from_pretrained(wan_folder)
    cond, uncond = reference.encode_prompt(PROMPTS, negative_prompt="", max_sequence_length=32)
    expected = torch.cat([cond, uncond]).detach().numpy()
    np.testing.assert_allclose(pipe.encode(PROMPTS)["encoder_hidden_states"], expected, atol=1e-5)


def test_guidance_of_one_or_less_leaves_out_the_unconditional_branch(
    document: PolicyDocument, exported: Path
) -> None:
    sampler = msgspec.structs.replace(document.sampler, guidance=1.0)
    pipe = opened(msgspec.structs.replace(document, sampler=sampler), exported)
    assert pipe.encode(PROMPTS[:1])["encoder_hidden_states"].shape == (1, 32, 96)
    pipe.generate(PROMPTS[0])
    assert pipe.denoising_loop(1).forwards == {"compute": 3, "reuse": 1, "reuse_terms": 2}
