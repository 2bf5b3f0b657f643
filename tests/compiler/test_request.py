import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import budc.compiler.request as request_module
from budc.compiler.policy_source import make_request, named_source, read_source
from budc.policies.profile import load_profile
from budc.schema.errors import (
    BudcError,
    BudgetImpossible,
    KeyUnusable,
    OutputError,
    UnsupportedModel,
    UsageError,
    WeightsMissing,
)


def test_flags_override_the_source_and_paths_are_relative_to_it(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('model = "wan2.1-nano"\nbudget = 10\nseed = 3\ncalibration = "prompts.txt"\n')
    request = make_request(read_source(path), {"budget": "2.8x", "seed": None})
    assert (request.model, request.budget, request.seed) == ("wan2.1-nano", "2.8x", 3)
    assert request.calibration == tmp_path / "prompts.txt"


def test_files_and_sizes_of_a_source_are_those_of_the_flags(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(
        'model = "wan2.1-nano"\nbudget = 10\nheld_out = "held.csv"\nguidance = 3\n'
        'lora = ["style.safetensors:0.8"]\nshape = ["64x64", "32x48x5"]\n'
    )
    request = make_request(read_source(path), {})
    assert (request.held_out, request.guidance) == (tmp_path / "held.csv", 3.0)
    assert request.lora == (f"{tmp_path}/style.safetensors:0.8",)
    assert request.shape == ("64x64", "32x48x5")
    assert make_request(read_source(path), {"shape": ("16x16",)}).shape == ("16x16",)


def test_an_unknown_key_suggests_the_nearest(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('model = "wan2.1-nano"\nbudjet = "10"\n')
    with pytest.raises(UsageError, match="unknown key 'budjet'") as caught:
        read_source(path)
    assert "budget" in caught.value.remedy


@pytest.mark.parametrize(
    "text", ["model = ", "\xff", 'model = "a"\nmodel = "b"\n'], ids=["truncated", "not UTF-8", "repeated key"]
)
def test_a_source_that_is_not_toml_is_refused(tmp_path, text):
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"policy\.toml"):
        read_source(path)


def test_a_missing_source_is_refused():
    with pytest.raises(UsageError, match="cannot read"):
        read_source(Path("nowhere.toml"))


@pytest.mark.parametrize(
    "content", [".".join("a" * 100_000) + " = 1", "a = " + "[" * 5000, "a = '\0'", "#" * (1 << 20 | 1)]
)
def test_a_source_that_a_reader_chokes_on_is_refused(tmp_path, content):
    (tmp_path / "policy.toml").write_text(content)
    with pytest.raises(UsageError, match=r"policy\.toml"):
        read_source(tmp_path / "policy.toml")


def test_a_source_that_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(UsageError, match="not a regular file"):
            read_source(path)


@pytest.mark.parametrize(
    "source",
    [
        {"budget": "10"},
        {"model": "wan2.1-nano"},
        {"model": 3, "budget": "10"},
        {"model": "wan2.1-nano", "budget": "10", "seed": "zero"},
        {"model": "wan2.1-nano", "budget": "10", "seed": -1},
        {"model": "wan2.1-nano", "budget": "10", "steps": 0},
        {"model": "wan2.1-nano", "budget": "10", "revision": 0},
        {"model": "wan2.1-nano", "budget": "10", "download": "yes"},
        {"model": "wan2.1-nano", "budget": ["10"]},
    ],
    ids=str,
)
def test_bad_values_are_refused(source):
    with pytest.raises(UsageError):
        make_request(source, {}).resolve()


OF_A_FILE = {
    "a mask": ('mask = "0,99"', "mask in {path}: step 99 is outside a schedule of 50 steps"),
    "a list": ("mask = [0, 3]", "mask in {path}: Expected `str`, got `array`"),
    "a search": ('mask = "0,3"\nsearch = "dp"', 'search = "dp" in {path}: the mask that is given'),
    "two budgets": ('budget = 5\nsweep = "5,6"', "both budget in {path} and sweep in {path} given"),
    "a budget": ('budget = "x"', "budget in {path}: 'x' is neither"),
}


@pytest.mark.parametrize(("content", "message"), OF_A_FILE.values(), ids=OF_A_FILE)
def test_what_is_wrong_in_a_source_is_named_by_its_key(tmp_path, content, message):
    path = tmp_path / "policy.toml"
    path.write_text(f'model = "wan2.1-nano"\n{content}\n')
    asked = read_source(path)
    with named_source(path, asked, {}), pytest.raises(BudcError) as refused:
        make_request(asked, {}).resolve()
    assert message.format(path=path) in str(refused.value)


def test_a_flag_that_overrides_a_source_is_named_as_a_flag(tmp_path):
    path, flags = tmp_path / "policy.toml", {"mask": "0,99"}
    path.write_text('model = "wan2.1-nano"\nmask = "0,3"\n')
    asked = read_source(path)
    with named_source(path, asked, flags), pytest.raises(UsageError, match="--mask: step 99"):
        make_request(asked, flags).resolve()


def resolved(**fields):
    return make_request({"model": "wan2.1-nano"}, fields).resolve()


def budgets(plan):
    return {planned.nfe: planned.budget for planned in plan.policies}


def test_a_budget_becomes_evaluations():
    plan = resolved(budget="2.8x")
    steps = load_profile("wan2.1-nano").steps
    assert (plan.target.profile.name, plan.steps, plan.auto_steps) == ("wan2.1-nano", steps, False)
    assert budgets(plan) == {steps * 10 // 28: "2.8x"}
    few, auto = resolved(budget="4", steps=12), resolved(budget="4", steps="auto")
    assert (few.steps, few.auto_steps, budgets(few)) == (12, False, {4: "4"})
    assert (auto.steps, auto.auto_steps, budgets(auto)) == (steps, True, {4: "4"})


def test_policies_are_named_after_the_model_or_as_the_user_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (planned,) = resolved(budget="4").policies
    assert (planned.name, planned.path) == ("wan2.1-nano-nfe4", Path("wan2.1-nano-nfe4.budc.json"))
    (planned,) = resolved(budget="4", name="mine").policies
    assert (planned.name, planned.path) == ("mine", Path("mine.budc.json"))
    (planned,) = resolved(budget="4", name="mine", out="other.json").policies
    assert (planned.name, planned.path) == ("mine", Path("other.json"))
    family = resolved(sweep="4,5", name="mine", out=tmp_path).policies
    assert [planned.name for planned in family] == ["mine-nfe4", "mine-nfe5"]
    assert [planned.path for planned in family] == [tmp_path / f"mine-nfe{nfe}.budc.json" for nfe in (4, 5)]


def test_the_cheapest_refusal_comes_first(tmp_path):
    """Each request has all the faults of those after it."""
    faults = {
        "model": ("no-such", UsageError, "no profile named 'no-such'"),
        "search": ("no-such", UsageError, "no algorithm named 'no-such'"),
        "budget": ("0", BudgetImpossible, "--budget"),
        "name": ("two words", UsageError, "--name"),
        "key": (str(tmp_path / "no.key"), KeyUnusable, "no.key"),
        "out": (tmp_path / "none" / "policy.budc.json", OutputError, "--out"),
        "calibration": (tmp_path / "none.txt", UsageError, "cannot read prompts"),
        "weights": (tmp_path / "no-weights", WeightsMissing, "no-weights"),
    }
    fields = {name: value for name, (value, _, _) in faults.items()}
    for name, (_, error, message) in faults.items():
        with pytest.raises(error, match=message):
            make_request({}, fields).resolve()
        good = {"model": "wan2.1-nano", "budget": "4"}
        fields = {key: value for key, value in fields.items() if key != name} | (
            {name: good[name]} if name in good else {}
        )
    assert make_request({}, fields).resolve().policies[0].nfe == 4


def test_an_unsupported_pipeline_is_refused_before_its_weights_are_looked_for(monkeypatch):
    other = msgspec.structs.replace(load_profile("wan2.1-nano"), pipeline_class="LTXPipeline")
    monkeypatch.setattr(request_module, "choose_model", lambda name: other)
    with pytest.raises(UnsupportedModel, match="cannot compile for LTXPipeline"):
        resolved(budget="4", weights="nowhere")


def test_a_request_is_resolved_without_a_framework():
    code = """
import sys
from budc.compiler.policy_source import make_request
from budc.compiler.transfer_request import TransferRequest
make_request({}, {"model": "wan2.1-nano", "budget": "4"}).resolve()
heavy = {"torch", "numpy", "diffusers", "transformers", "onnxruntime"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_sweep_is_several_budgets(tmp_path):
    assert budgets(resolved(sweep="6, 8,5x", steps=40)) == {6: "6", 8: "5x"}
    path = tmp_path / "policy.toml"
    path.write_text(
        'model = "wan2.1-nano"\nsweep = "6,8"\nsteps = "auto"\nalign = true\nbranches = "separate"\n'
    )
    request = make_request(read_source(path), {})
    assert (request.sweep, request.steps, request.align, request.branches) == (
        "6,8",
        "auto",
        True,
        "separate",
    )
    assert request.search == "joint"


@pytest.mark.parametrize("sweep", ["", "6,", "6,60", "6;8", "6,,8"])
def test_a_sweep_that_is_none_is_refused(sweep):
    with pytest.raises(BudgetImpossible, match="--sweep"):
        resolved(sweep=sweep, steps=50)


def test_a_budget_and_a_sweep_are_one_too_many():
    with pytest.raises(UsageError, match="both --budget and --sweep given"):
        make_request({"model": "wan2.1-nano", "budget": "6"}, {"sweep": "6,8"})


@pytest.mark.parametrize("flags", [{"align": True}, {"steps": "auto"}], ids=str)
@pytest.mark.parametrize("search", ["paper", "uniform"])
def test_reference_searches_leave_no_prompts_to_judge_by(flags, search):
    with pytest.raises(UsageError, match=f"--search {search} leaves no prompts") as caught:
        resolved(budget="6", search=search, **flags)
    assert "joint" in caught.value.remedy
    resolved(budget="6", **flags)


def test_the_paper_s_search_may_train_sigmas_alone():
    plan = resolved(budget="6", search="paper", align=True, train="sigmas")
    assert (plan.align, plan.train) == (True, "sigmas")
    for train in (None, "both", "coefficients"):
        with pytest.raises(UsageError, match="--align: --search paper leaves no prompts") as caught:
            resolved(budget="6", search="paper", align=True, train=train)
        assert "--train sigmas" in caught.value.remedy
    with pytest.raises(UsageError, match="--steps auto: --search paper leaves"):
        resolved(budget="6", search="paper", align=True, train="sigmas", steps="auto")
    with pytest.raises(UsageError, match="--align: --search uniform leaves") as caught:
        resolved(budget="6", search="uniform", align=True, train="sigmas")
    assert "--train" not in caught.value.remedy


def test_what_is_trained_is_said_with_an_alignment_alone():
    assert resolved(budget="6", align=True, train="coefficients").train == "coefficients"
    assert resolved(budget="6", align=True).train == "both"
    with pytest.raises(UsageError, match="--train: says what --align trains"):
        resolved(budget="6", train="sigmas")


SECOND_STAGE = {"budget": "6", "search": "paper", "align": True, "train": "sigmas"}


def test_the_second_stage_may_minimise_lpips(tmp_path):
    (tmp_path / "lpips").mkdir()
    (tmp_path / "lpips" / "features.safetensors").touch()
    with pytest.raises(WeightsMissing, match=r"lpips/linear\.safetensors is not there") as caught:
        resolved(**SECOND_STAGE, loss="lpips", metric_weights=tmp_path)
    assert f"--metric-weights {tmp_path} with features.safetensors (AlexNet" in caught.value.remedy
    (tmp_path / "lpips" / "linear.safetensors").touch()
    plan = resolved(**SECOND_STAGE, loss="lpips", metric_weights=tmp_path)
    assert plan.lpips == tmp_path / "lpips"
    assert resolved(**SECOND_STAGE, loss="latents").lpips is None


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"budget": "6"}, UsageError, "--loss lpips: is what the paper's second stage minimises"),
        ({"budget": "6", "align": True, "train": "sigmas"}, UsageError, "the paper's second stage"),
        (SECOND_STAGE, WeightsMissing, "--loss lpips: its weights are needed"),
        (
            SECOND_STAGE | {"metric_weights": "nowhere"},
            WeightsMissing,
            "nowhere/lpips/features.safetensors is not there",
        ),
        (SECOND_STAGE | {"no_frames": True}, UsageError, "--no-frames decodes none"),
        (SECOND_STAGE | {"height": 16, "width": 32}, UsageError, "frames of 16 × 32 pixels are smaller"),
        (SECOND_STAGE | {"metric_weights": ".", "loss": None}, UsageError, "where --loss lpips finds its"),
    ],
    ids=str,
)
def test_a_loss_that_cannot_be_trained_by_is_refused(fields, error, says):
    with pytest.raises(error, match=re.escape(says)) as caught:
        resolved(**{"loss": "lpips"} | fields)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "fields",
    [{"steps": "many"}, {"branches": "apart"}, {"align": "yes"}, {"train": "all"}, {"sweep": 3.5}],
    ids=str,
)
def test_bad_choices_are_refused(fields):
    with pytest.raises(UsageError, match=f"--{next(iter(fields))}: (Expected|Invalid)"):
        make_request({"model": "wan2.1-nano"}, {"budget": "6"} | fields if "sweep" not in fields else fields)


def test_masks_of_their_own_are_refused_where_branches_share_a_forward():
    make = {"budget": "8", "branches": "separate"}
    with pytest.raises(UsageError, match="ZImagePipeline runs its branches in one forward"):
        make_request({"model": "z-image"}, make).resolve()
    make_request({"model": "wan2.1-nano"}, make).resolve()
