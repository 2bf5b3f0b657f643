"""A compiled policy is measured as it is deployed: with its adapters, in its engine, on its own schedule."""

import dataclasses
import hashlib
import json
from dataclasses import replace

import pytest
import torch
from flag_compiles import compiled
from lora import write_lora

from budc.compiler.evaluation.replay import ReplayRequest, replay
from budc.policies.profile import load_profile
from budc.policies.samples import HELD_OUT_SEED
from budc.runtimes.sampling import adapters
from budc.schema.errors import (
    CalibrationMismatch,
    UnsupportedModel,
    UsageError,
)
from budc.schema.policy import NegativePrompt


def test_prompts_seeds_and_settings_of_one_s_own_are_in_the_artifact(flags, tmp_path, wan_folder):
    mine = tmp_path / "mine.csv"
    mine.write_text("prompt,seed,negative_prompt\na red circle,7,\na blue square,8,dark\na star,9,\n")
    settings = {"height": 32, "width": 48, "frames": 5, "guidance": 3.0}
    own = settings | {"calibration": mine, "scheduler": "FlowMatchEulerDiscreteScheduler"}
    document = compiled(flags | own | {"search": "uniform", "calibration_size": 2}).document
    shape, sampler = document.shape, document.sampler
    assert (shape.height, shape.width, shape.frames, sampler.guidance) == tuple(settings.values())
    assert (sampler.scheduler, sampler.config["shift"]) == ("FlowMatchEulerDiscreteScheduler", 5.0)
    assert sampler.negative_prompt == NegativePrompt(rule="varied")
    assert document.quality.calibration.size == 2
    assert document.search.settings["calibrationFile"] == "mine.csv"
    with pytest.raises(UnsupportedModel, match=r"measured on other prompts than wan2\.1-nano has") as caught:
        replay(ReplayRequest(document, wan_folder))
    assert "--held-out FILE" in caught.value.remedy
    replayed = replay(ReplayRequest(document, wan_folder, prompts=flags["held_out"]))
    assert [pair.measured.mean for pair in replayed] == [pair.reported.mean for pair in replayed]
    with pytest.raises(UsageError, match=r"was not measured on the first 2 of .*mine\.csv"):
        replay(ReplayRequest(document, wan_folder, prompts=mine))


def test_a_policy_for_an_adapter_runs_with_it_alone(flags, tmp_path, model, wan_folder, monkeypatch):
    import budc

    style = write_lora(tmp_path / "style.safetensors", model.denoiser)
    flags = flags | {"search": "uniform"}
    plain = compiled(flags | {"out": tmp_path / "plain.budc.json"}).document
    written = compiled(flags | {"lora": (f"{style}:0.5",)})
    document = written.document
    (adapter,) = document.model.adapters.scaled
    assert (document.schema_version, document.model.adapters.rule) == ("1.1", "listed")
    assert (adapter.name, adapter.scale, adapter.denoiser) == ("style", 0.5, None)
    assert adapter.file == hashlib.sha256(style.read_bytes()).hexdigest()
    assert document.model.denoisers == plain.model.denoisers
    assert document.quality.metrics != plain.quality.metrics
    pipe = budc.load_pipeline("wan2.1-nano", weights=wan_folder)
    with (
        pytest.raises(CalibrationMismatch, match="calibrated with style"),
        pytest.warns(UserWarning, match="is not signed"),
    ):
        budc.apply(pipe, written.path, allow_unsigned=True)
    pipe.load_lora_weights(str(tmp_path), weight_name=style.name, adapter_name="a")
    pipe.set_adapters("a", 0.5)
    with pytest.warns(UserWarning, match="is not signed"):
        assert budc.apply(pipe, written.path, allow_unsigned=True).uncalibrated == ()
    again = ReplayRequest(document, wan_folder, prompts=flags["held_out"], lora=(f"{style}:0.5",))
    pairs = replay(again)
    assert [pair.measured.mean for pair in pairs] == [pair.reported.mean for pair in pairs]
    with pytest.raises(UsageError, match=r"--lora: the policy was calibrated with style at scale 0\.5"):
        replay(dataclasses.replace(again, lora=()))
    # A library that reads the file otherwise: the factor at scale 1 is part of what an adapter adds.
    monkeypatch.setattr(adapters, "_factor", lambda layer, name: 2.0)
    with pytest.raises(CalibrationMismatch, match="adapters: style adds other tensors here"):
        replay(again)


def test_a_policy_for_an_engine_and_an_adapter_is_measured_as_both_run(flags, tmp_path, model, wan_folder):
    import torch
    from diffusers import MagCacheConfig

    import budc
    from budc.runtimes.targets.losses import deployed
    from budc.runtimes.targets.registry import TARGETS

    style = write_lora(tmp_path / "style.safetensors", model.denoiser)
    engine = TARGETS["diffusers-magcache"]
    further = {"search": "uniform", "engine": engine.name, "lora": (f"{style}:0.5",)}
    document = compiled(flags | further).document
    assert (document.target.name, document.model.adapters.scaled[0].name) == (engine.name, "style")
    deployment = deployed(engine, document, "sha256:" + "0" * 64, {})
    assert deployment.losses == ()
    pipe = budc.load_pipeline("wan2.1-nano", weights=wan_folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(tmp_path), weight_name=style.name, adapter_name="style")
    pipe.set_adapters("style", 0.5)
    shape = document.pipeline().shape

    def run(index, prompt):
        generator = torch.Generator().manual_seed(HELD_OUT_SEED + index)
        return pipe(
            prompt, height=shape.height, width=shape.width, num_frames=shape.frames, generator=generator,
            num_inference_steps=document.sampler.steps, guidance_scale=document.sampler.guidance,
            max_sequence_length=shape.text_tokens, output_type="latent",
        ).frames  # fmt: skip

    prompts = [line for line in flags["held_out"].read_text().splitlines() if line]
    prompts = prompts[: document.quality.held_out.size]
    full = [run(*each) for each in enumerate(prompts)]
    pipe.transformer.enable_cache(MagCacheConfig(**json.loads(engine.write(deployment).text)))
    errors = [
        float((run(*each) - expected).square().mean())
        for each, expected in zip(enumerate(prompts), full, strict=True)
    ]
    metric = next(metric for metric in document.quality.metrics if metric.name == "latent-mse")
    assert metric.worst == pytest.approx(max(errors), rel=1e-3)


def test_an_aligned_policy_is_deployed_on_its_own_schedule(model, sampler, pipeline_rollout, reference):
    """What the real scheduler makes of the binding is what was found."""
    from budc.compiler.compile_task import deployed_sampler
    from budc.compiler.denoisers.batched import BatchedDenoiser
    from budc.compiler.models.denoiser import ModelDenoiser
    from budc.compiler.rollouts.policies import full_policy
    from budc.compiler.rollouts.policy import rollout_policy
    from budc.compiler.rollouts.schedule import NoiseSchedule
    from budc.compiler.selection.task import SearchResult

    sigmas = tuple(torch.tensor([0.9998, 0.9, 0.7, 0.41, 0.0]).tolist())
    timesteps = torch.tensor([1000 * sigma for sigma in sigmas[:-1]]).tolist()
    schedule = NoiseSchedule.of(model.scheduler, sigmas, timesteps)
    policy = full_policy(4, ("cond", "uncond"))
    result = SearchResult(policy, schedule, 0.0, aligned=True)
    binding = deployed_sampler(model, sampler, result)
    assert (binding.steps, tuple(binding.sigmas)) == (4, sigmas)
    network = BatchedDenoiser(ModelDenoiser(model), reference.conditions)
    followed = rollout_policy(network, schedule.linear_form(), policy)
    rolled = pipeline_rollout.run(policy, binding, reference.conditions)
    torch.testing.assert_close(rolled, followed, atol=1e-5, rtol=1e-5)
    # The solver's own few steps, where alignment gained nothing, and the full schedule.
    assert deployed_sampler(model, sampler, replace(result, aligned=False)) == model.sampler(4)
    full = NoiseSchedule(model.scheduler, (0.0,) * 7, (0.0,) * 6)
    assert deployed_sampler(model, sampler, SearchResult(policy, full, 0.0)) == sampler


def test_a_real_profile_goes_the_same_road(flags, wan_folder, monkeypatch, capsys):
    """Wan2.1 as it is deployed (bfloat16, its own flow shift), its size cut down to what a CPU can do."""
    import msgspec

    import budc.compiler.request as requests

    real = load_profile("wan2.1")
    small = msgspec.structs.replace(real, height=64, width=64, frames=9, text_tokens=32, architecture={})
    monkeypatch.setattr(requests, "choose_model", lambda name: small)
    document = compiled(flags | {"model": "wan2.1", "search": "uniform"}).document
    assert document.shape.dtype == "bfloat16"
    assert document.sampler.config["flow_shift"] == real.scheduler_config["flow_shift"]
    assert document.model.family == "wan2.1"
    assert 0 < document.quality.metrics[0].mean < 10
    assert "no accelerator" in capsys.readouterr().err or torch.accelerator.is_available()
