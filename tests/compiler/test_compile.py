"""The passes together: a payload that is the same every time, whatever happened on the way."""

import os
import random
import signal
import subprocess
import sys

import pytest
import torch

from budc.compiler.compile import compile_policy
from budc.compiler.request import make_request
from budc.policies.profile import load_profile
from budc.schema.artifact import open_artifact
from budc.schema.errors import (
    BudcError,
    BudgetImpossible,
    KeyUnusable,
    OutputError,
    UnsafeWeights,
    UnsupportedModel,
    UsageError,
    WeightsMissing,
)
from budc.schema.keys import generate_key
from budc.schema.trust import Trust

SCRIPT = """
import sys, torch
torch.set_num_threads(1)
import msgspec
from budc.compiler import request as requests, rollout
from budc.compiler.compile import compile_policy
from budc.compiler.request import make_request
load = requests.load_profile
def smaller(name):
    profile = load(name)
    return msgspec.structs.replace(profile, prompts=msgspec.structs.replace(profile.prompts, held_out_size=2))
requests.load_profile = smaller
rolled = rollout.Roller._roll
def counted(self, *arguments):
    latents = rolled(self, *arguments)
    print("rolled", flush=True)
    return latents
rollout.Roller._roll = counted
model, budget, steps, weights, calibration, search, out = sys.argv[1:]
compile_policy(make_request({}, dict(model=model, budget=budget, steps=int(steps), weights=weights,
                                     calibration=calibration, search=search, out=out)))
"""


@pytest.fixture
def flags(wan_folder, prompt_file, tmp_path, monkeypatch):
    """A compile that takes seconds."""
    import budc.compiler.compile as passes

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    held_out = ("a tiny green dot sails right over stripes", "a great yellow box goes down on checks")
    read = passes.read_prompts
    monkeypatch.setattr(
        passes,
        "read_prompts",
        lambda name, limit=None: held_out if "held-out" in str(name) else read(name, limit),
    )
    return {
        "model": "wan2.1-nano",
        "budget": "2",
        "steps": 6,
        "weights": wan_folder,
        "calibration": prompt_file,
        "out": tmp_path / "policy.budc.json",
    }


def test_compile_signs_what_it_found_and_says_what_it_measured(flags, tmp_path):
    pair = generate_key()
    (tmp_path / "key").write_bytes(pair.private)
    (tmp_path / "pub").write_bytes(pair.public)
    written = compile_policy(make_request({}, flags | {"key": tmp_path / "key"}))
    artifact = open_artifact(flags["out"], Trust.from_pem(tmp_path / "pub"))
    document = artifact.document
    assert artifact.policy_id == written.policy_id
    assert document.policy.branches[0].step_mask().nfe == document.budget.nfe == 2
    assert document.search.candidates == 5
    # Full runs of 3 prompts and 5 candidates of 2 evaluations, in two branches each.
    assert document.search.forwards == 2 * 3 * (6 + 5 * 2)
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


def test_same_inputs_same_payload(flags, tmp_path):
    first = compile_policy(make_request({}, flags))
    second = compile_policy(make_request({}, flags | {"out": tmp_path / "again.budc.json"}))
    assert first.payload == second.payload
    third = compile_policy(make_request({}, flags | {"seed": 1, "out": tmp_path / "other.budc.json"}))
    assert third.payload != first.payload


def test_interrupted_at_every_stage_it_ends_with_the_same_payload(flags, tmp_path, monkeypatch):
    import budc.compiler.journal as journal

    expected = compile_policy(make_request({}, flags | {"out": tmp_path / "undisturbed.budc.json"})).payload
    put = journal.Journal.put
    for stop in range(1, 20):
        written = []

        def stopping(self, key, value, stop=stop, written=written):
            put(self, key, value)
            written.append(key)
            if len(written) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(journal.Journal, "put", stopping)
        try:
            done = compile_policy(make_request({}, flags))
        except KeyboardInterrupt:
            assert not flags["out"].exists()
            monkeypatch.setattr(journal.Journal, "put", put)
            assert compile_policy(make_request({}, flags)).payload == expected
            flags["out"].unlink()
        else:
            assert done.payload == expected
            return
    raise AssertionError("the compile never got to its end")


def test_a_real_profile_goes_the_same_road(flags, wan_folder, monkeypatch, capsys):
    """Wan2.1 as it is deployed (bfloat16, its own flow shift), its size cut down to what a CPU can do."""
    import msgspec

    import budc.compiler.request as requests

    real = load_profile("wan2.1")
    small = msgspec.structs.replace(real, height=64, width=64, frames=9, text_tokens=32)
    monkeypatch.setattr(requests, "load_profile", lambda name: small)
    document = compile_policy(make_request({}, flags | {"model": "wan2.1", "search": "uniform"})).document
    assert document.shape.dtype == "bfloat16"
    assert document.sampler.config["flow_shift"] == real.scheduler_config["flow_shift"]
    assert document.model.family == "wan2.1"
    assert 0 < document.quality.metrics[0].mean < 10
    assert "no CUDA device" in capsys.readouterr().err or torch.cuda.is_available()


class Killer:
    """Compiles in processes of their own that are killed after some rollouts."""

    def __init__(self, wan_folder, prompt_file, budget, steps):
        self.arguments = ("wan2.1-nano", str(budget), str(steps), str(wan_folder), str(prompt_file), "paper")
        self.environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "OMP_NUM_THREADS": "1"}

    def compile(self, out, kill_after=None):
        """Run until done, or kill -9 after some rollouts; return how many ended."""
        command = [sys.executable, "-c", SCRIPT, *self.arguments, str(out)]
        process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        rolled = 0
        for _ in process.stdout:
            rolled += 1
            if rolled == kill_after:
                process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == (0 if kill_after is None or rolled < kill_after else -signal.SIGKILL)
        return rolled


def journalled(folder):
    """Measurements on disk: whole lines after the header."""
    lines = [path.read_bytes().count(b"\n") - 1 for path in folder.glob(".*/journal.jsonl")]
    return sum(lines)


def check_kills(killer, tmp_path, kills):
    undisturbed, out = tmp_path / "undisturbed.budc.json", tmp_path / "killed.budc.json"
    needed = killer.compile(undisturbed)
    spent = wasted = 0
    for kill_after in kills:
        before = journalled(tmp_path)
        rolled = killer.compile(out, kill_after)
        spent += rolled
        kept = journalled(tmp_path) - before
        # The rollout in flight and the one whose record was not yet written.
        assert rolled - 1 <= kept <= rolled
        wasted += rolled - kept
    spent += killer.compile(out)
    assert spent == needed + wasted
    assert out.read_bytes() == undisturbed.read_bytes()


def test_kill_9_loses_one_rollout_at_most(wan_folder, prompt_file, tmp_path):
    check_kills(Killer(wan_folder, prompt_file, 2, 5), tmp_path, kills=[2, 3])


@pytest.mark.slow
def test_kill_9_at_fifty_moments_loses_one_rollout_at_most(wan_folder, prompt_file, tmp_path):
    rng = random.Random(0)
    check_kills(
        Killer(wan_folder, prompt_file, 5, 14), tmp_path, kills=[rng.randint(1, 6) for _ in range(50)]
    )


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
    ],
    ids=str,
)
def test_bad_input_is_refused_before_any_rollout(flags, change, error, word, monkeypatch):
    from budc.compiler.rollout import Roller

    monkeypatch.setattr(Roller, "roll", lambda *_: pytest.fail("rolled out"))
    paths = {"weights", "calibration", "key", "out"}
    from pathlib import Path

    change = {key: Path(value) if key in paths else value for key, value in change.items()}
    with pytest.raises(error, match=word.replace(".", r"\.")) as caught:
        compile_policy(make_request({}, flags | change))
    assert caught.value.remedy


def test_held_out_prompts_cannot_calibrate(flags, tmp_path):
    shared = tmp_path / "shared.txt"
    shared.write_text("a tiny green dot sails right over stripes\n")
    with pytest.raises(UsageError, match="held out"):
        compile_policy(make_request({}, flags | {"calibration": shared}))


def test_real_models_without_weights_say_what_to_do(flags, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for model, repository in (
        ("wan2.1", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
        ("wan2.1-14b", "Wan-AI/Wan2.1-T2V-14B-Diffusers"),
    ):
        with pytest.raises(WeightsMissing) as caught:
            compile_policy(make_request({}, flags | {"model": model, "weights": None}))
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
        compile_policy(make_request({}, flags | {"weights": folder}))


def test_truncated_weights_are_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (weights,) = (folder / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UnsafeWeights, match=weights.name):
        compile_policy(make_request({}, flags | {"weights": folder}))


def test_another_pipeline_class_is_refused(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("WanPipeline", "FluxPipeline"))
    with pytest.raises(UnsupportedModel, match="FluxPipeline"):
        compile_policy(make_request({}, flags | {"weights": folder}))


@pytest.mark.parametrize(
    ("defect", "error", "word"),
    [
        ("vae/diffusion_pytorch_model.safetensors", WeightsMissing, "vae"),
        ("vae/config.json", WeightsMissing, "no configuration"),
        ("text_encoder", WeightsMissing, "text_encoder"),
        ("text_encoder/model.safetensors", WeightsMissing, "text_encoder"),
        ("tokenizer", WeightsMissing, "tokenizer"),
        ("transformer/config.json", WeightsMissing, "transformer: no configuration"),
        ("scheduler/scheduler_config.json", WeightsMissing, "scheduler"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_before_any_rollout(
    flags, wan_folder, tmp_path, monkeypatch, defect, error, word
):
    import shutil

    from budc.compiler.rollout import Roller

    monkeypatch.setattr(Roller, "roll", lambda *_: pytest.fail("rolled out"))
    folder = copy_model(wan_folder, tmp_path / "m")
    gone = folder / defect
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(error, match=word):
        compile_policy(make_request({}, flags | {"weights": folder}))


@pytest.mark.parametrize(
    "name", ["transformer/config.json", "scheduler/scheduler_config.json", "vae/config.json"]
)
@pytest.mark.parametrize("content", ["[]", "{", '{"_class_name": 3, "num_layers": "four"}'])
def test_a_damaged_configuration_is_refused(flags, wan_folder, tmp_path, name, content):
    folder = copy_model(wan_folder, tmp_path / "m")
    (folder / name).write_text(content)
    with pytest.raises(BudcError) as caught:
        compile_policy(make_request({}, flags | {"weights": folder}))
    assert name.partition("/")[0] in str(caught.value)


def test_a_shard_that_is_not_there_is_named(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    index = folder / "text_encoder" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}')
    with pytest.raises(WeightsMissing, match="model-00002-of-00002"):
        compile_policy(make_request({}, flags | {"weights": folder}))


def test_a_pickle_beside_the_weights_is_refused_before_it_could_bind(flags, wan_folder, tmp_path):
    folder = copy_model(wan_folder, tmp_path / "m")
    (folder / "transformer" / "old.bin").write_bytes(b"x")
    with pytest.raises(UnsafeWeights, match=r"old\.bin"):
        compile_policy(make_request({}, flags | {"weights": folder}))
