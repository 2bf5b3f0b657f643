"""Qwen-Image, end to end on a tiny random folder: guidance that is no weighted sum, text of any length."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from elsewhere import rollouts  # noqa: E402

import budc  # noqa: E402
from budc.cli.generation.pipeline import CallSettings, generate  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.denoisers.batched import BatchedDenoiser  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.denoiser import ModelDenoiser  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.compiler.rollouts.policies import full_policy  # noqa: E402
from budc.policies.profile import load_profile, read_prompts  # noqa: E402
from budc.policies.samples import HELD_OUT_SEED  # noqa: E402
from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.schema.errors import UnsupportedModel, WeightsMissing  # noqa: E402

CPU = torch.device("cpu")
NAME = "qwen-image-tiny"
BOTH = ("cond", "uncond")


@pytest.fixture
def folder(qwen_image_folder: Path) -> Path:
    return qwen_image_folder


@pytest.fixture
def profile(tiny_profile: Any, tmp_path: Path) -> Any:
    made = load_profile(tiny_profile(NAME, "qwen-image", height=32, width=48))
    (tmp_path / "profiles" / "held-out.txt").write_text("a green leaf\ntwo small old boats by a tall house\n")
    return made


@pytest.fixture
def model(profile: Any, folder: Path) -> Any:
    return load_model(profile, folder, CPU)


@pytest.fixture
def pipe(folder: Path) -> Any:
    loaded = diffusers.QwenImagePipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def deployed(pipe: Any, prompt: str, seed: int, steps: int = 6, output: str = "latent") -> Any:
    return pipe(
        prompt=prompt,
        negative_prompt=" ",
        height=32,
        width=48,
        num_inference_steps=steps,
        true_cfg_scale=4.0,
        generator=torch.Generator().manual_seed(seed),
        output_type=output,
    ).images


def test_the_full_rollout_is_the_pipeline_bit_for_bit(model: Any, pipe: Any) -> None:
    sampler = model.sampler(6)
    prompts = read_prompts("held-out.txt", 2)
    conditions = encode_prompts(model, prompts, range(5, 7))
    found = PipelineRollout(model).run(full_policy(6, BOTH), sampler, conditions)
    for index, prompt in enumerate(prompts):
        assert torch.equal(found[index : index + 1], deployed(pipe, prompt, 5 + index))
        assert sampler.sigmas == pipe.scheduler.sigmas.tolist()
        assert sampler.timesteps == pipe.scheduler.timesteps.tolist()


def test_half_precision_is_the_pipeline_s_too(profile: Any, folder: Path) -> None:
    import msgspec

    half = load_model(msgspec.structs.replace(profile, dtype="bfloat16"), folder, CPU)
    pipe = diffusers.QwenImagePipeline.from_pretrained(folder, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    conditions = encode_prompts(half, ["a green leaf"], [5])
    latents = PipelineRollout(half).run(full_policy(6, BOTH), half.sampler(6), conditions)
    assert torch.equal(latents, deployed(pipe, "a green leaf", 5).to(latents.dtype))


def test_samples_of_a_batch_are_those_of_single_forwards(model: Any) -> None:
    conditions = encode_prompts(model, ["a leaf", "two small old boats by a tall house", "a box"], range(3))
    lengths = conditions.embeddings["cond"]["tokens"].tolist()
    assert lengths[0] == lengths[2] == lengths[1] - 6
    denoiser, time = ModelDenoiser(model), torch.tensor(700.0)
    network = BatchedDenoiser(denoiser, conditions, model.adapter.batch)
    apart = network.compute("cond", conditions.noise, time)
    last = BatchedDenoiser(denoiser, conditions.part(2, 3), model.adapter.batch)
    assert torch.equal(last.compute("cond", conditions.noise[2:], time)[0], apart[0][2:])
    together = BatchedDenoiser(denoiser, conditions, 3).compute("cond", conditions.noise, time)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_guidance_keeps_the_length_of_every_cell_and_is_no_weighted_sum(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    cond, uncond = (torch.randn(2, 96, 16, generator=generator) for _ in BOTH)
    guided = ModelDenoiser(model).guide({"cond": cond, "uncond": uncond}, torch.tensor(500.0))
    torch.testing.assert_close(guided.norm(dim=-1), cond.norm(dim=-1))
    plain = uncond + 4 * (cond - uncond)
    torch.testing.assert_close(torch.cosine_similarity(guided, plain, dim=-1), torch.ones(2, 96))
    assert not torch.allclose(guided, plain, rtol=0.1)


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize(
    ("search", "align"), [("dp", False), pytest.param("joint", True, marks=pytest.mark.slow)]
)
def test_an_artifact_runs_as_it_was_rolled_out(
    model: Any, folder: Path, tmp_path: Path, pipe: Any, search: str, align: bool
) -> None:
    request = CompileRequest(
        model=NAME, budget="3", weights=folder, search=search, align=align, out=tmp_path / "q.budc.json"
    )
    (artifact,) = compile_artifacts(request.resolve())
    document = artifact.document
    assert document.budget.nfe == 3
    prompt = read_prompts("held-out.txt", 2)[1]
    conditions = encode_prompts(model, [prompt], [HELD_OUT_SEED + 1])
    expected = PipelineRollout(model).run(document.policy, document.sampler, conditions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with budc.applied(pipe, artifact.path, allow_unsigned=True) as handle:
            made = deployed(pipe, prompt, HELD_OUT_SEED + 1)
            settings = CallSettings.of(pipe, document, model.profile)
            run = generate(pipe, settings, prompt, HELD_OUT_SEED + 1, 6, "as budc run does")
            assert handle.uncalibrated == ()
    assert settings.arguments["true_cfg_scale"] == 4.0
    assert torch.equal(made, expected)
    assert torch.equal(run.latents, expected)
    assert not torch.allclose(made, deployed(pipe, prompt, HELD_OUT_SEED + 1), rtol=1e-3)


def test_rollouts_elsewhere(model: Any) -> None:
    here, there = rollouts(model, read_prompts("held-out.txt", 2))
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def test_frames_are_the_pipeline_s(model: Any, pipe: Any) -> None:
    latents = deployed(pipe, "a red box", 1, 2)
    frames = model.adapter.decoder(model.folder, model.profile, CPU)(latents)
    assert frames.shape == (1, 3, 1, 32, 48)
    torch.testing.assert_close(frames[:, :, 0], deployed(pipe, "a red box", 1, 2, "pt"))


def test_a_folder_without_its_text_encoder_is_refused(profile: Any, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("text_encoder"))
    with pytest.raises(WeightsMissing, match="broken/text_encoder: no configuration there"):
        load_model(profile, broken, CPU)


def test_a_folder_of_another_pipeline_is_refused(profile: Any, flux_folder: Path) -> None:
    with pytest.raises(
        UnsupportedModel, match="is a FluxPipeline, but qwen-image-tiny is a QwenImagePipeline"
    ):
        load_model(profile, flux_folder, CPU)
