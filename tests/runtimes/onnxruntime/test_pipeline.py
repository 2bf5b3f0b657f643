"""The ONNX pipeline: what it opens and refuses, batches, either kind of payload, and memory."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop  # noqa: E402
from budc.runtimes.onnxruntime.noise import seeded_noise  # noqa: E402
from budc.runtimes.onnxruntime.pipeline import (  # noqa: E402
    OnnxPipeline,
    UncalibratedWarning,
    UnsignedWarning,
    choose_provider,
    load,
)
from budc.runtimes.onnxruntime.provider import Provider  # noqa: E402
from budc.runtimes.onnxruntime.sessions import DenoiserSessions  # noqa: E402
from budc.runtimes.sampling.solvers import Scheduler  # noqa: E402
from budc.runtimes.testing import GOLDEN, STEPS  # noqa: E402
from budc.schema.artifact import read, seal  # noqa: E402
from budc.schema.errors import (  # noqa: E402
    CalibrationMismatch,
    RefusedRun,
    UnsafeWeights,
    Unsigned,
    UnsupportedModel,
    UntrustedKey,
    UsageError,
    WeightsMismatch,
    WeightsMissing,
)
from budc.schema.policy import Expert, PolicyDocument  # noqa: E402

PROMPTS = ["a red circle", "a big blue box drifts up"]


@pytest.fixture(scope="module")
def unbound(untrained: PolicyDocument) -> PolicyDocument:
    return GOLDEN["three terms"].document(untrained)


@pytest.fixture(scope="module")
def document(untrained_export: PolicyDocument) -> PolicyDocument:
    return GOLDEN["three terms"].document(untrained_export)


@pytest.fixture
def pipe(document: PolicyDocument, exported: Path) -> OnnxPipeline:
    return opened(document, exported)


def opened(document: PolicyDocument, folder: Path, **options: Any) -> OnnxPipeline:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        return load(document, folder, allow_unsigned=True, provider=choose_provider("cpu", 1), **options)


@pytest.mark.parametrize("name", ["text_encoder", "compute", "vae_decoder"])
def test_a_graph_that_changes_between_load_and_first_use_is_refused(
    document: PolicyDocument, exported: Path, tmp_path: Path, name: str
) -> None:
    """Graphs are opened when they are first needed, which may be long after the folder was verified."""
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    pipe = opened(document, folder)
    path = folder / pipe.manifest.graphs[name].file  # type: ignore[index]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsMismatch, match=r"has changed since the export was verified"):
        pipe.generate(PROMPTS[0])
    path.write_bytes(content)
    pipe.generate(PROMPTS[0])
    path.unlink()
    pipe.generate(PROMPTS[0])


# What is believed ------------------------------------------------------------------------------------------


def test_signed_artifacts(document: PolicyDocument, exported: Path, signer: Any, trust: Any) -> None:
    artifact = read(seal(document, signer))
    generation = load(artifact, exported, trust=trust).generate(PROMPTS[0])
    assert generation.frames.shape == (5, 64, 64, 3)
    assert 0 <= generation.frames.min() < generation.frames.max() <= 1
    assert generation.latents.shape == (1, 16, 2, 8, 8)
    assert generation.seconds > 0
    with pytest.raises(UntrustedKey):
        load(artifact, exported)


def test_unsigned_documents_run_with_a_warning_or_not_at_all(
    document: PolicyDocument, exported: Path
) -> None:
    with pytest.raises(Unsigned):
        load(document, exported)
    with pytest.warns(UnsignedWarning, match="nobody vouches"):
        load(document, exported, allow_unsigned=True)


def test_an_export_that_the_policy_does_not_list(unbound: PolicyDocument, exported: Path) -> None:
    with pytest.raises(WeightsMismatch, match="lists no ONNX export") as refusal:
        opened(unbound, exported)
    assert "budc bind" in refusal.value.remedy
    with pytest.warns(UncalibratedWarning, match="weights: "):
        pipe = opened(unbound, exported, allow_uncalibrated=True)
    assert pipe.uncalibrated[0].startswith("weights: ")


@pytest.mark.parametrize(
    "name",
    ["transformer/compute.onnx", "vae_decoder/model.onnx.data", "tokenizer/tokenizer.json", "budc-onnx.json"],
)
def test_every_file_is_verified(document: PolicyDocument, exported: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(WeightsMismatch, match=name):
        opened(document, folder)
    # An uncalibrated run may use other weights, but only files that match the manifest.
    with pytest.raises((WeightsMismatch, UnsafeWeights), match=name):
        opened(document, folder, allow_uncalibrated=True)


def test_missing_folders_and_files(document: PolicyDocument, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        opened(document, tmp_path / "none")
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    (folder / "transformer" / "weights.onnx.data").unlink()
    with pytest.raises(WeightsMissing, match=r"transformer/weights\.onnx\.data"):
        opened(document, folder)


def test_another_denoiser(document: PolicyDocument, exported: Path) -> None:
    denoiser = msgspec.structs.replace(document.model.denoisers[0], class_name="FluxTransformer2DModel")
    model = msgspec.structs.replace(document.model, denoisers=[denoiser])
    with pytest.raises(
        UnsupportedModel, match="FluxTransformer2DModel, the export has transformer WanTransformer3DModel"
    ):
        opened(msgspec.structs.replace(document, model=model), exported)


def test_several_denoisers(document: PolicyDocument, exported: Path) -> None:
    (first,) = document.model.denoisers
    second = msgspec.structs.replace(first, name="transformer_2")
    model = msgspec.structs.replace(document.model, denoisers=[first, second])
    document = GOLDEN["plain reuse"].document(document)
    expert = Expert(denoiser="transformer_2", first_step=3, guidance=3.0)
    sampler = msgspec.structs.replace(document.sampler, experts=[expert])
    message = "for transformer WanTransformer3DModel, transformer_2 WanTransformer3DModel, the export has transformer Wan"
    with pytest.raises(UnsupportedModel, match=message):
        opened(msgspec.structs.replace(document, model=model, sampler=sampler), exported)


# What runs ---------------------------------------------------------------------------------------------------


def test_a_batch_is_its_samples_one_by_one(pipe: OnnxPipeline) -> None:
    noise = np.concatenate([seeded_noise((1, 16, 2, 8, 8), seed) for seed in (5, 6)])
    together = pipe.denoising_loop(2).run(pipe.encode(PROMPTS), noise)
    alone = [pipe.generate(prompt, seed=5 + i).latents for i, prompt in enumerate(PROMPTS)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_what_does_not_fit_is_refused(pipe: OnnxPipeline) -> None:
    with pytest.raises(RefusedRun, match=r"noise: \(2, 16, 2, 8, 8\)"):
        pipe.denoising_loop(1).run(pipe.encode(PROMPTS[:1]), np.zeros((2, 16, 2, 8, 8), np.float32))
    with pytest.raises(RefusedRun, match=r"encoder_hidden_states: \(4, 32, 96\)"):
        pipe.denoising_loop(1).run(pipe.encode(PROMPTS), pipe.noise(0))
    with pytest.raises(RefusedRun, match="encoder_hidden_states: nothing"):
        pipe.denoising_loop(1).run({}, pipe.noise(0))


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


def reusing_velocities(name: str, document: PolicyDocument) -> PolicyDocument:
    document = GOLDEN[name].document(document)
    return msgspec.structs.replace(
        document, policy=msgspec.structs.replace(document.policy, payload="velocity")
    )


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


class Capturing(Provider):
    """The CPU, with its bound sessions numbered as for CUDA graphs."""

    @property
    def captures(self) -> bool:
        return True


@pytest.mark.parametrize("name", list(GOLDEN))
def test_every_run_uses_the_same_bound_sessions(
    name: str, document: PolicyDocument, exported: Path, pipe: OnnxPipeline
) -> None:
    sessions = DenoiserSessions(exported, pipe.manifest, Capturing("cpu", 1))
    loop = DenoisingLoop(sessions, GOLDEN[name].document(document))
    embeddings, noise = pipe.encode(PROMPTS[:1]), seeded_noise((1, 16, 2, 8, 8), 0)
    expected = loop.run(embeddings, noise)
    forwards, updates = dict(loop._forwards.bound), dict(loop._updates.bound)
    for stop in (2, STEPS):
        latents = loop.run(embeddings, noise, lambda step, stop=stop: step != stop)
    np.testing.assert_array_equal(latents, expected)
    assert (loop._forwards.bound, loop._updates.bound) == (forwards, updates)
    numbers = [bound.cuda_graph for bound in (*forwards.values(), *updates.values())]
    assert sorted(numbers) == list(range(1, sessions.cuda_graphs + 1))
    assert len(numbers) <= 2 * STEPS + 2
    # Two updates, one for each state; nothing else is bound twice.
    assert len(updates) == 2


@pytest.mark.parametrize(
    ("name", "slots"), [("plain reuse", 1), ("two terms", 2), ("three terms", 3), ("every step", 1)]
)
def test_no_more_residuals_are_kept_than_the_policy_needs(
    name: str, slots: int, document: PolicyDocument, exported: Path
) -> None:
    loop = opened(GOLDEN[name].document(document), exported).denoising_loop(1)
    assert [len(group.residuals) for group in loop._buffers.groups] == [slots]


def test_guidance_of_one_or_less_leaves_out_the_unconditional_branch(
    document: PolicyDocument, exported: Path
) -> None:
    sampler = msgspec.structs.replace(document.sampler, guidance=1.0)
    pipe = opened(msgspec.structs.replace(document, sampler=sampler), exported)
    assert pipe.encode(PROMPTS[:1])["encoder_hidden_states"].shape == (1, 32, 96)
    pipe.generate(PROMPTS[0])
    assert pipe.denoising_loop(1).forwards == {"compute": 3, "reuse": 1, "reuse_terms": 2}


def test_other_steps_are_refused_before_anything_runs(pipe: OnnxPipeline) -> None:
    with pytest.raises(CalibrationMismatch, match="steps: the policy has 6, this run asks for 50"):
        pipe.generate(PROMPTS[0], steps=50)
    assert not pipe._loops
    assert pipe.generate(PROMPTS[0], steps=6).latents.shape == (1, 16, 2, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": PROMPTS}, "prompt: a list is no text"),
        ({"prompt": None}, "prompt: None is no text"),
        ({"prompt": b"a red circle"}, "prompt: a bytes is no text"),
        ({"prompt": "\ud800"}, "prompt: holds half of a surrogate pair"),
        ({"seed": None}, "seed: None is no whole number from 0"),
        ({"seed": -1}, "seed: -1 is no whole number from 0"),
        ({"seed": 1.5}, r"seed: 1\.5 is no whole number from 0"),
        ({"seed": 2**64}, "seed: 18446744073709551616 is no whole number from 0"),
        ({"on_step": 3}, "on_step: 3 is no function"),
    ],
    ids=repr,
)
def test_generate_names_a_wrong_argument(pipe: OnnxPipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refusal:
        pipe.generate(**{"prompt": PROMPTS[0]} | arguments)
    assert "pass" in refusal.value.remedy
    assert not pipe._loops


def test_every_step_of_a_run_names_a_wrong_argument(pipe: OnnxPipeline) -> None:
    wrong: dict[str, Callable[[], object]] = {
        "prompts: 'a red circle' is not a list": lambda: pipe.encode("a red circle"),
        "prompts: an empty sequence": lambda: pipe.encode([]),
        r"prompts\[1\]: None is no text": lambda: pipe.encode(["a", None]),  # type: ignore[list-item]
        "seed: None": lambda: pipe.noise(None),  # type: ignore[arg-type]
        "batch: 0 is no whole number from 1": lambda: pipe.denoising_loop(0),
    }
    for message, call in wrong.items():
        with pytest.raises(UsageError, match=message):
            call()
    np.testing.assert_array_equal(pipe.noise(np.int64(3)), pipe.noise(3))  # type: ignore[arg-type]


def test_load_names_a_wrong_folder_or_provider(document: PolicyDocument, exported: Path) -> None:
    for folder in (None, b"folder", ""):
        with pytest.raises(UsageError, match=r"folder: .* is no path"):
            opened(document, folder)  # type: ignore[arg-type]
    with pytest.raises(WeightsMissing):
        opened(document, Path(__file__))
    for provider in (None, ["cpu"], "gpu"):
        with (
            pytest.warns(UnsignedWarning),
            pytest.raises(UsageError, match=r"provider: .* is not one of cpu, cuda"),
        ):
            load(document, exported, allow_unsigned=True, provider=provider)  # type: ignore[arg-type]
