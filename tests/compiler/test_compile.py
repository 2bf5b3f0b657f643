"""The passes together: a payload that is the same every time, whatever happened on the way."""

import dataclasses
import functools
import hashlib
import json
import sys
from dataclasses import replace

import pytest
import torch
from lora import write_lora
from lpips_weights import ALEX, ALEX_WIDTHS, random_layers, save_lpips

from budc.compiler.compile import compile_artifacts
from budc.compiler.evaluation.replay import ReplayRequest, replay
from budc.compiler.policy_source import make_request
from budc.compiler.selection.effort import DEFAULT_EFFORT
from budc.policies.profile import load_profile
from budc.policies.samples import HELD_OUT_SEED
from budc.runtimes.sampling import adapters
from budc.schema.artifact import open_artifact
from budc.schema.errors import (
    BudcError,
    BudgetImpossible,
    CalibrationMismatch,
    KeyUnusable,
    OutputError,
    UnsafeWeights,
    UnsupportedModel,
    UsageError,
    WeightsMissing,
)
from budc.schema.keys import generate_key
from budc.schema.policy import NegativePrompt
from budc.schema.trust import Trust


def compiled(flags):
    """Compile one policy."""
    (artifact,) = compile_artifacts(make_request({}, flags).resolve())
    return artifact


@pytest.fixture
def flags(wan_folder, prompt_file, tmp_path, monkeypatch):
    """A compile that takes seconds."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("a tiny green dot sails right over stripes\na great yellow box goes down on checks\n")
    return {
        "model": "wan2.1-nano",
        "budget": "2",
        "steps": 6,
        **{"height": 32, "width": 48, "frames": 5},
        "weights": wan_folder,
        "calibration": prompt_file,
        "held_out": held_out,
        "out": tmp_path / "policy.budc.json",
    }


def test_compile_signs_what_it_found_and_says_what_it_measured(flags, tmp_path):
    pair = generate_key()
    (tmp_path / "key").write_bytes(pair.private)
    (tmp_path / "pub").write_bytes(pair.public)
    written = compiled(flags | {"key": tmp_path / "key", "search": "paper"})
    artifact = open_artifact(flags["out"], Trust.from_pem(tmp_path / "pub"))
    document = artifact.document
    assert artifact.policy_id == written.policy_id
    assert document.policy.branches[0].step_mask().nfe == document.budget.nfe == 2
    assert document.search.candidates == 5
    # Full runs of 3 prompts, then one first evaluation that five candidates share and one more of each; two branches.
    assert document.search.forwards == 2 * 3 * (6 + 1 + 5)
    assert document.quality.objective == "latent-mse-mean"
    assert [(baseline.name, baseline.nfe) for baseline in document.quality.baselines] == [
        ("uniform", 2),
        ("fewer-steps", 2),
        ("full", 6),
    ]
    assert document.quality.held_out.size == 2
    assert document.quality.calibration.size == 3
    policy, uniform = document.quality.metrics[0], document.quality.baselines[0].metrics[0]
    assert policy.mean > 0
    assert uniform.mean > 0
    assert not list(tmp_path.glob(".policy*")), "the journal goes once the artifact stands"


def test_the_second_stage_minimises_lpips_where_it_is_told_to(flags, tmp_path, monkeypatch):
    import budc.compiler.selection.settings as settings
    from budc.compiler.training import schedule_alignment, second_stage

    short = second_stage.Configuration(samples=3, batch=1, clip=0.2)
    for module in (schedule_alignment, settings):
        monkeypatch.setattr(module, "configuration", lambda branches: short)
    save_lpips(tmp_path / "lpips", random_layers(ALEX, 0), ALEX_WIDTHS)
    flags = flags | {"search": "paper", "align": True, "train": "sigmas"}
    document = compiled(flags | {"loss": "lpips", "metric_weights": tmp_path}).document
    assert document.search.settings["loss"] == "lpips"
    assert document.search.settings["lossWeights"].startswith("sha256:")
    assert (
        "sigmas trained by lpips on 3 prompts, and judged by no others" in document.search.settings.values()
    )


def test_the_negative_prompt_is_recorded_and_decides(flags, tmp_path):
    flags = flags | {"search": "uniform"}
    plain = compiled(flags).document
    other = compiled(flags | {"negative": "a red circle", "out": tmp_path / "other.budc.json"}).document
    assert (plain.schema_version, other.schema_version) == ("1.1", "1.1")
    assert plain.sampler.negative_prompt == NegativePrompt(rule="fixed", text="")
    assert other.sampler.negative_prompt == NegativePrompt(rule="fixed", text="a red circle")
    for name in ("calibration", "held_out"):
        assert getattr(plain.quality, name).digest != getattr(other.quality, name).digest
    assert plain.quality.metrics != other.quality.metrics


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


def test_the_default_is_the_joint_search_with_fitted_coefficients(flags, tmp_path):
    trace = tmp_path / "trace.jsonl"
    document = compiled(flags | {"budget": "3", "trace": trace}).document
    scored = [json.loads(line) for line in trace.read_text().splitlines()]
    assert len(scored) == document.search.candidates
    assert [line["candidate"] for line in scored] == list(range(1, len(scored) + 1))
    assert scored[-1]["best"] == min(line["loss"] for line in scored)
    assert {line["nfe"] for line in scored} == {3} == {len(line["steps"][0]) for line in scored}
    spent = [line["forwards"] for line in scored]
    assert spent == sorted(spent)
    assert 0 < spent[-1] < document.search.forwards
    assert document.search.algorithm == "joint"
    assert document.quality.objective == "latent-mse-log-mean"
    assert document.search.settings["effort"] == DEFAULT_EFFORT
    rows = [row for branch in document.policy.branches for row in branch.predictor if row]
    assert any(row != [1.0] for row in rows)
    assert not document.search.settings["aligned"]
    uniform = document.quality.baselines[0].metrics[0]
    assert document.quality.metrics[0].geometric_mean < uniform.geometric_mean


@pytest.mark.usefixtures("short_search")
def test_same_inputs_same_payload(flags, tmp_path):
    first = compiled(flags)
    second = compiled(flags | {"out": tmp_path / "again.budc.json"})
    assert first.payload == second.payload
    third = compiled(flags | {"seed": 1, "out": tmp_path / "other.budc.json"})
    assert third.payload != first.payload


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"search": "paper"},
        {"align": True, "branches": "separate", "steps": "auto"},
    ],
    ids=["paper", "aligned"],
)
def test_interrupted_at_every_stage_it_ends_with_the_same_payload(flags, tmp_path, monkeypatch, more):
    import msgspec

    import budc.compiler.request as requests
    import budc.compiler.selection.alignment as alignment
    import budc.compiler.storage.journal as journal
    from budc.compiler.models.pipelines.wan import WanAdapter

    load, encode = requests.choose_model, WanAdapter.encode
    monkeypatch.setattr(requests, "choose_model", lambda name: msgspec.structs.replace(load(name), steps=4))
    monkeypatch.setattr(alignment, "epochs", lambda nfe, given: 1)
    # Text encoders are no part of what is resumed, and loading them takes most of the time.
    encoded = {}
    monkeypatch.setattr(
        WanAdapter,
        "encode",
        lambda self, folder, profile, samples, device: (
            encoded.get(samples)
            or encoded.setdefault(samples, encode(self, folder, profile, samples, device))
        ),
    )
    monkeypatch.setattr(sys.modules["budc.compiler.search.joint"], "ROLLOUT_LIMIT", (0.0, 2.0, 2.0))
    flags = flags | {"steps": 4} | more
    put, written = journal.Journal.put, []

    def stopping(self, key, value, stop=None):
        put(self, key, value)
        written.append(key)
        if len(written) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "put", stopping)
    trace, flags["trace"] = tmp_path / "undisturbed.jsonl", tmp_path / "trace.jsonl"
    expected = compiled(flags | {"out": tmp_path / "undisturbed.budc.json", "trace": trace}).payload
    stages = [key.split()[0] for key in written]
    assert {"calibration", "held-out", "frames", flags.get("search", "joint")} <= set(stages)
    assert "align" not in flags or {"arbitration", "align"} <= set(stages)
    # After the first and the last measurement of every stage.
    last = len(stages) - 1
    stops = [
        index + 1
        for index, stage in enumerate(stages)
        if index in (0, last) or stage != stages[index - 1] or stage != stages[index + 1]
    ]
    for stop in stops:
        written.clear()
        monkeypatch.setattr(journal.Journal, "put", functools.partialmethod(stopping, stop=stop))
        with pytest.raises(KeyboardInterrupt):
            compiled(flags)
        assert not flags["out"].exists()
        monkeypatch.setattr(journal.Journal, "put", put)
        assert compiled(flags).payload == expected, written[-1]
        assert flags["trace"].read_text() == trace.read_text()
        flags["out"].unlink()


@pytest.mark.slow
def test_a_sweep_is_a_family_that_shares_the_full_run(flags, tmp_path):
    family = tmp_path / "family"
    family.mkdir()
    flags = {key: value for key, value in flags.items() if key != "budget"}
    artifacts = compile_artifacts(make_request({}, flags | {"sweep": "2,2x,4", "out": family}).resolve())
    assert [artifact.document.budget.nfe for artifact in artifacts] == [2, 3, 4]
    assert [artifact.document.budget.requested for artifact in artifacts] == ["2", "2x", "4"]
    assert sorted(path.name for path in family.iterdir()) == [
        f"wan2.1-nano-nfe{nfe}.budc.json" for nfe in (2, 3, 4)
    ]
    with_more = [artifact.document.quality.metrics[0].geometric_mean for artifact in artifacts]
    assert with_more[2] < with_more[0]


def test_a_sweep_needs_a_folder(flags):
    flags = {key: value for key, value in flags.items() if key != "budget"}
    with pytest.raises(OutputError, match="folder"):
        make_request({}, flags | {"sweep": "2,3"}).resolve()


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


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"model": "wan2.1-nana"}, UsageError, "wan2.1-nana"),
        ({"budget": "7"}, BudgetImpossible, "--budget"),
        ({"search": "exhaust"}, UsageError, "exhaust"),
        ({"name": "my policy"}, UsageError, "--name"),
        ({"out": "nowhere/policy.budc.json"}, OutputError, "nowhere"),
        ({"out": "."}, OutputError, "--out"),
        ({"key": "no.key"}, KeyUnusable, "no.key"),
        ({"calibration": "no.txt"}, UsageError, "no.txt"),
        ({"weights": "nowhere"}, WeightsMissing, "nowhere"),
        ({"trace": "nowhere/trace.jsonl"}, OutputError, "--trace"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_any_rollout(flags, change, error, word, monkeypatch):
    from budc.compiler.evaluation.pipeline_rollout import PipelineRollout

    monkeypatch.setattr(PipelineRollout, "run", lambda *_: pytest.fail("rolled out"))
    paths = {"weights", "calibration", "key", "out", "trace"}
    from pathlib import Path

    change = {key: Path(value) if key in paths else value for key, value in change.items()}
    with pytest.raises(error, match=word.replace(".", r"\.")) as caught:
        compiled(flags | change)
    assert caught.value.remedy


@pytest.mark.parametrize("asked", [{"align": True}, {"steps": "auto", "budget": "4"}])
def test_too_few_prompts_to_judge_by_are_refused_before_any_rollout(flags, asked, tmp_path, monkeypatch):
    monkeypatch.setattr("budc.compiler.loaded_target.load_model", lambda *_: pytest.fail("loaded"))
    few = tmp_path / "few.txt"
    few.write_text("a red circle\na blue square\n")
    with pytest.raises(UsageError, match="2 calibration prompts leave none"):
        compiled(flags | {"search": "joint", "calibration": str(few)} | asked)


def test_held_out_prompts_cannot_calibrate(flags, tmp_path):
    shared = tmp_path / "shared.txt"
    shared.write_text("a tiny green dot sails right over stripes\n")
    with pytest.raises(UsageError, match=r"held-out\.txt, line 1: .*shared\.txt, line 1"):
        compiled(flags | {"calibration": shared})


def test_real_models_without_weights_say_what_to_do(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for model, repository in (
        ("wan2.1", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("wan2.1-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers"),
    ):
        with pytest.raises(WeightsMissing) as caught:
            compiled(flags | {"model": model, "weights": None})
        message = f"{caught.value} {caught.value.remedy}"
        for part in (repository, "GB", str(tmp_path / "hub"), "--download", "wan2.1-nano"):
            assert part in message


def copy_model(source, target):
    import shutil

    shutil.copytree(source, target)
    return target


def test_pickled_weights_are_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (weights,) = (folder / "transformer").glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UnsafeWeights, match="pickled"):
        compiled(flags | {"weights": folder})


def test_truncated_weights_are_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (weights,) = (folder / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnsafeWeights, match=weights.name):
        compiled(flags | {"weights": folder})


def test_another_pipeline_class_is_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("WanPipeline", "FluxPipeline"))
    with pytest.raises(UnsupportedModel, match="FluxPipeline"):
        compiled(flags | {"weights": folder})


@pytest.mark.parametrize(
    ("defect", "error", "word"),
    [
        ("vae/diffusion_pytorch_model.safetensors", WeightsMissing, "vae"),
        ("vae/config.json", WeightsMissing, r"vae/config\.json: no such file"),
        ("text_encoder", WeightsMissing, "text_encoder"),
        ("text_encoder/model.safetensors", WeightsMissing, "text_encoder"),
        ("tokenizer", WeightsMissing, "tokenizer"),
        ("transformer/config.json", WeightsMissing, r"transformer/config\.json: no such file"),
        ("scheduler/scheduler_config.json", WeightsMissing, "scheduler"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_before_any_rollout(
    flags, wan_folder, tmp_path, monkeypatch, defect, error, word
):
    import shutil

    from budc.compiler.evaluation.pipeline_rollout import PipelineRollout

    monkeypatch.setattr(PipelineRollout, "run", lambda *_: pytest.fail("rolled out"))
    folder = copy_model(wan_folder, tmp_path / "m")
    gone = folder / defect
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(error, match=word):
        compiled(flags | {"weights": folder})


@pytest.mark.parametrize(
    "name", ["transformer/config.json", "scheduler/scheduler_config.json", "vae/config.json"]
)
@pytest.mark.parametrize("content", ["[]", "{", '{"_class_name": 3, "num_layers": "four"}'])
def test_a_damaged_configuration_is_refused(flags, wan_folder, tmp_path, name, content):
    folder = copy_model(wan_folder, tmp_path / "m")
    (folder / name).write_text(content)
    with pytest.raises(BudcError) as caught:
        compiled(flags | {"weights": folder})
    assert name.partition("/")[0] in str(caught.value)


def test_a_shard_that_is_not_there_is_named(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    index = folder / "text_encoder" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}')
    with pytest.raises(WeightsMissing, match="model-00002-of-00002"):
        compiled(flags | {"weights": folder})


def test_a_pickle_beside_the_weights_is_refused_before_it_could_bind(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (folder / "transformer" / "old.bin").write_bytes(b"x")
    with pytest.raises(UnsafeWeights, match=r"old\.bin"):
        compiled(flags | {"weights": folder})


def test_a_trace_does_not_take_the_artifacts_place(flags):
    with pytest.raises(UsageError, match="is where the artifact goes"):
        make_request({}, flags | {"trace": flags["out"]}).resolve()
