"""FLUX, end to end on a tiny random folder: what the compiler rolls out is what the pipeline makes."""

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import budc  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.compiler.rollouts.policies import full_policy  # noqa: E402
from budc.policies.profile import load_profile, read_prompts  # noqa: E402
from budc.policies.samples import HELD_OUT_SEED  # noqa: E402
from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.schema.errors import UnsupportedModel  # noqa: E402


@pytest.fixture
def model(flux_profile: str, flux_folder: Path) -> Any:
    return load_model(load_profile(flux_profile), flux_folder, torch.device("cpu"))


@pytest.fixture
def pipe(flux_folder: Path) -> Any:
    loaded = diffusers.FluxPipeline.from_pretrained(flux_folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def deployed(pipe: Any, prompt: str, seed: int, steps: int, output: str = "latent") -> Any:
    return pipe(
        prompt=prompt,
        height=32,
        width=48,
        num_inference_steps=steps,
        guidance_scale=3.5,
        max_sequence_length=8,
        generator=torch.Generator().manual_seed(seed),
        output_type=output,
    ).images


def compiled(name: str, folder: Path, out: Path, search: str, budget: str = "3") -> Any:
    request = CompileRequest(model=name, budget=budget, weights=folder, search=search, out=out)
    (artifact,) = compile_artifacts(request.resolve())
    return artifact


def test_the_full_rollout_is_the_pipeline_bit_for_bit(model: Any, pipe: Any) -> None:
    sampler = model.sampler(6)
    prompts = read_prompts("held-out.txt", 2)
    conditions = encode_prompts(model, prompts, range(5, 7))
    for index, prompt in enumerate(prompts):
        latents = PipelineRollout(model).run(
            full_policy(6, ("cond",)), sampler, conditions.part(index, index + 1)
        )
        assert torch.equal(latents, deployed(pipe, prompt, 5 + index, 6))


def test_frames_are_the_pipeline_s(model: Any, pipe: Any) -> None:
    latents = deployed(pipe, "a red box", 1, 2)
    frames = model.adapter.decoder(model.folder, model.profile, model.device)(latents)
    assert frames.shape == (1, 3, 1, 32, 48)
    torch.testing.assert_close(frames[:, :, 0], deployed(pipe, "a red box", 1, 2, "pt").cpu())


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("search", ["uniform", "joint"])
def test_an_artifact_runs_as_it_was_rolled_out(
    flux_profile: str, flux_folder: Path, tmp_path: Path, model: Any, pipe: Any, search: str
) -> None:
    artifact = compiled(flux_profile, flux_folder, tmp_path / "flux.budc.json", search)
    document = artifact.document
    assert document.budget.nfe == 3
    assert document.sampler.sigmas[0] == 1.0
    prompt = read_prompts("held-out.txt", 2)[0]
    conditions = encode_prompts(model, [prompt], range(HELD_OUT_SEED, HELD_OUT_SEED + 1))
    expected = PipelineRollout(model).run(document.policy, document.sampler, conditions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with budc.applied(pipe, artifact.path, allow_unsigned=True) as handle:
            latents = deployed(pipe, prompt, HELD_OUT_SEED, document.sampler.steps)
            assert handle.uncalibrated == ()
    assert torch.equal(latents, expected)
    assert not torch.equal(latents, deployed(pipe, prompt, HELD_OUT_SEED, document.sampler.steps))


def test_the_report_measures_what_the_pipeline_makes(
    flux_profile: str, flux_folder: Path, tmp_path: Path, pipe: Any
) -> None:
    artifact = compiled(flux_profile, flux_folder, tmp_path / "flux.budc.json", "uniform")
    errors = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        for index, prompt in enumerate(read_prompts("held-out.txt", 2)):
            full = deployed(pipe, prompt, HELD_OUT_SEED + index, 6)
            with budc.applied(pipe, artifact.path, allow_unsigned=True):
                latents = deployed(pipe, prompt, HELD_OUT_SEED + index, 6)
            errors.append(float((latents - full).square().mean()))
    metric = next(m for m in artifact.document.quality.metrics if m.name == "latent-mse")
    assert metric.worst == pytest.approx(max(errors), rel=1e-3)
    assert metric.mean > 0


def test_the_schedule_is_shifted_for_the_size(model: Any) -> None:
    assert model.adapter.image_tokens(model.folder, model.profile) == 8 * 12
    shifted, plain = model.sampler(6).sigmas, [1 - k / 6 for k in range(7)]
    assert shifted[0] == 1.0
    assert max(abs(a - b) for a, b in zip(shifted, plain, strict=True)) > 0.05


def test_another_size_of_the_same_class_is_refused(flux_profile: str, flux_folder: Path) -> None:
    with pytest.raises(
        UnsupportedModel, match=r"transformer/config\.json: num_layers is 1, but flux.1-dev has 19"
    ):
        load_model(load_profile("flux.1-dev"), flux_folder, torch.device("cpu"))
