"""Z-Image, end to end on a tiny random folder: one branch, and two branches that the pipeline batches."""

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
TURBO, GUIDED = "z-image-turbo-tiny", "z-image-tiny"
LONG = "a large green leaf upon a small blue pond under a tall red tree"


@pytest.fixture
def folder(z_image_folder: Path) -> Path:
    return z_image_folder


@pytest.fixture
def profiles(tiny_profile: Any, tmp_path: Path) -> None:
    """Small editions of both profiles; held-out prompts of one and of two times 32 tokens."""
    tiny_profile(TURBO, "z-image-turbo", height=40, width=48)
    tiny_profile(GUIDED, "z-image", height=40, width=48)
    (tmp_path / "profiles" / "held-out.txt").write_text(f"a green leaf\n{LONG}\n")


@pytest.fixture
def load(profiles: None, folder: Path) -> Any:
    return lambda name: load_model(load_profile(name), folder, CPU)


@pytest.fixture
def pipe(folder: Path) -> Any:
    loaded = diffusers.ZImagePipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def deployed(pipe: Any, name: str, prompt: Any, seed: int, steps: int = 6, output: str = "latent") -> Any:
    seeds = [seed + index for index in range(1 if isinstance(prompt, str) else len(prompt))]
    return pipe(
        prompt=prompt,
        height=40,
        width=48,
        num_inference_steps=steps,
        guidance_scale=load_profile(name).guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type=output,
    ).images


def agree(name: str, made: Any, expected: Any) -> None:
    if name == TURBO:
        assert torch.equal(made, expected)
    else:
        # The pipeline runs both branches in one forward, padded to the longer: attention adds up in another order.
        assert (made - expected).norm() < 5e-6 * expected.norm()


@pytest.mark.parametrize("name", [TURBO, GUIDED])
def test_the_full_rollout_is_the_pipeline(load: Any, pipe: Any, name: str) -> None:
    model = load(name)
    sampler = model.sampler(6)
    prompts = read_prompts("held-out.txt", 2)
    conditions = encode_prompts(model, prompts, range(5, 7))
    latents = PipelineRollout(model).run(full_policy(6, model.profile.branches), sampler, conditions)
    for index, prompt in enumerate(prompts):
        agree(name, latents[index : index + 1], deployed(pipe, name, prompt, 5 + index))
        assert sampler.sigmas == pipe.scheduler.sigmas.tolist()
        assert sampler.timesteps == pipe.scheduler.timesteps.tolist()


def test_a_sample_does_not_depend_on_the_others(load: Any) -> None:
    model = load(GUIDED)
    conditions = encode_prompts(model, ["a green leaf", LONG, "a red box"], range(3))
    assert conditions.embeddings["cond"]["tokens"].tolist() == [20, 71, 17]
    denoiser, time = ModelDenoiser(model), torch.tensor(700.0)
    network = BatchedDenoiser(denoiser, conditions, model.adapter.batch)
    velocity, residual = network.compute("cond", conditions.noise, time)
    # 10 × 12 cells, padded to 128 tokens; none of the text's.
    assert residual.shape == (3, 128, 32)
    alone = BatchedDenoiser(denoiser, conditions.part(2, 3), model.adapter.batch)
    assert torch.equal(alone.compute("cond", conditions.noise[2:], time)[0], velocity[2:])
    reused = network.reuse("cond", residual, conditions.noise, time)
    torch.testing.assert_close(reused, velocity, rtol=1e-4, atol=1e-5)
    assert torch.equal(alone.reuse("cond", residual[2:], conditions.noise[2:], time), reused[2:])
    # One forward for all is the same to rounding, text masked; so that a gradient may take them together.
    together = BatchedDenoiser(denoiser, conditions, 3).compute("cond", conditions.noise, time)
    torch.testing.assert_close(together, (velocity, residual), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param(TURBO, marks=pytest.mark.slow), GUIDED])
def test_an_artifact_runs_as_it_was_rolled_out(
    load: Any, folder: Path, tmp_path: Path, pipe: Any, name: str
) -> None:
    model = load(name)
    request = CompileRequest(
        model=name, budget="3", weights=folder, search="dp", out=tmp_path / "z.budc.json"
    )
    (artifact,) = compile_artifacts(request.resolve())
    document = artifact.document
    assert document.budget.nfe == 3
    prompts = read_prompts("held-out.txt", 2)
    conditions = encode_prompts(model, prompts, range(HELD_OUT_SEED, HELD_OUT_SEED + 2))
    expected = PipelineRollout(model).run(document.policy, document.sampler, conditions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with budc.applied(pipe, artifact.path, allow_unsigned=True) as handle:
            made = [deployed(pipe, name, prompt, HELD_OUT_SEED + i) for i, prompt in enumerate(prompts)]
            settings = CallSettings.of(pipe, document, model.profile)
            run = generate(pipe, settings, prompts[0], HELD_OUT_SEED, 6, "as budc run does")
            both = deployed(pipe, name, list(prompts), HELD_OUT_SEED)
            assert handle.uncalibrated == ()
    agree(name, torch.cat(made), expected)
    agree(name, run.latents, expected[:1])
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-4)
    full = torch.cat([deployed(pipe, name, prompt, HELD_OUT_SEED + i) for i, prompt in enumerate(prompts)])
    assert not torch.allclose(full, expected, rtol=1e-2)
    metric = next(m for m in document.quality.metrics if m.name == "latent-mse")
    errors = (torch.cat(made) - full).square().flatten(1).mean(1)
    assert metric.worst == pytest.approx(float(errors.max()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [TURBO, GUIDED])
def test_rollouts_elsewhere(load: Any, name: str) -> None:
    here, there = rollouts(load(name), read_prompts("held-out.txt", 2))
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)


def test_frames_are_the_pipeline_s(load: Any, pipe: Any) -> None:
    model = load(TURBO)
    latents = deployed(pipe, TURBO, "a red box", 1, 2)
    frames = model.adapter.decoder(model.folder, model.profile, CPU)(latents)
    assert frames.shape == (1, 3, 1, 40, 48)
    torch.testing.assert_close(frames[:, :, 0], deployed(pipe, TURBO, "a red box", 1, 2, "pt"))


def test_half_precision_is_the_pipeline_s_too(profiles: None, folder: Path) -> None:
    import msgspec

    profile = msgspec.structs.replace(load_profile(TURBO), dtype="bfloat16")
    model = load_model(profile, folder, CPU)
    pipe = diffusers.ZImagePipeline.from_pretrained(folder, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    conditions = encode_prompts(model, [LONG], [5])
    latents = PipelineRollout(model).run(full_policy(4, ("cond",)), model.sampler(4), conditions)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, deployed(pipe, TURBO, LONG, 5, 4))


def test_a_folder_without_its_text_encoder_is_refused(profiles: None, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken, ignore=shutil.ignore_patterns("text_encoder"))
    with pytest.raises(WeightsMissing, match=r"broken/text_encoder: no configuration there"):
        load_model(load_profile(TURBO), broken, CPU)


def test_a_folder_of_another_pipeline_is_refused(profiles: None, flux_folder: Path) -> None:
    with pytest.raises(UnsupportedModel, match="is a FluxPipeline, but z-image-tiny is a ZImagePipeline"):
        load_model(load_profile(GUIDED), flux_folder, CPU)
