"""`--for`: what an engine leaves no room for, refused before a model is loaded, and the search within what it can run."""

import pytest

from budc.compiler.policy_source import make_request, read_source
from budc.runtimes.sampling.rules import fixed_rows
from budc.runtimes.targets.openvino_genai import periodic_masks
from budc.runtimes.targets.registry import TARGETS
from budc.schema.errors import BudgetImpossible, UnsupportedModel, UsageError


def plan(model="flux-nano", **flags):
    given = {"model": model, "steps": 12, "budget": "4"} | flags
    if "mask" in flags:
        del given["budget"]
    return make_request({}, given).resolve()


def test_the_engine_is_in_the_plan_and_in_a_policy_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan(engine="diffusers-magcache").engine.name == "diffusers-magcache"
    assert plan().engine is None
    source = tmp_path / "policy.toml"
    source.write_text('model = "wan2.1-nano"\nbudget = "4"\nfor = "lightx2v"\n')
    assert make_request(read_source(source), {}).resolve().engine.name == "lightx2v"


def test_few_masks_are_all_rolled_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan(engine="openvino-genai").search == "known"
    assert plan(engine="openvino-genai", mask="##..#..#..#.").search == "given"


SGLANG = {"engine": "sglang-dpcache", "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"engine": "sglang"}, UsageError, "--for: no target named 'sglang'"),
        ({"engine": "sd.cpp"}, UsageError, "which follows no mask"),
        ({"engine": "lightx2v"}, UnsupportedModel, "for a FluxTransformer2DModel, lightx2v runs Wan"),
        ({"engine": "sglang-dpcache"}, UnsupportedModel, "float32, sglang-dpcache runs bfloat16"),
        ({**SGLANG, "budget": "1"}, BudgetImpossible, "computes the steps 0, 1 in every run"),
        ({**SGLANG, "search": "paper"}, UsageError, "it repeats the trunk residual"),
        ({**SGLANG, "mask": "#.#.#.#.#.#."}, UsageError, "--mask: .* computes the steps 0, 1 in every run"),
        ({**SGLANG, "align": True}, UsageError, "--align: SGLang's DPCache extrapolates the two newest"),
        ({**SGLANG, "align": True, "train": "sigmas"}, UsageError, "--align: .* makes its own sigmas"),
        ({**SGLANG, "mask": "##.#..#.#.#.", "fit": True}, UsageError, "--fit: .* no coefficients there"),
        ({**SGLANG, "shape": ("64x64", "48x48")}, UsageError, "--shape: a file of .* is for one size"),
        ({"engine": "openvino-genai", "mask": "##.#..#.#.#."}, UsageError, "is no mask that OpenVINO"),
        ({"engine": "openvino-genai", "budget": "1"}, BudgetImpossible, "computes the steps 0, 1"),
    ],
)
def test_refusals(tmp_path, monkeypatch, flags, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        plan(**flags)


def test_what_an_engine_has_room_for_is_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan(engine="openvino-genai", steps="auto").auto_steps
    assert plan(engine="cache-dit", shape=("64x64", "48x48")).further_sizes
    for wish in ({"quality": "latent-mse<=0.01"}, {"within": "2.0s"}):
        assert make_request({}, {"model": "flux-nano", "engine": "openvino-genai", **wish}).resolve().engine


@pytest.mark.parametrize("engine", [engine for engine in TARGETS.values() if engine.masks is not None])
def test_an_engine_of_few_masks_has_some_for_every_budget(engine):
    for steps in range(1, 21):
        for nfe in range(len(engine.always_computed(steps)), steps + 1):
            assert engine.masks(steps, nfe), f"{nfe} of {steps}"


def test_branches_of_their_own_need_an_engine_that_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan("wan2.1-nano", engine="lightx2v", branches="separate").separate
    with pytest.raises(UsageError, match="has one mask for all branches"):
        plan("wan2.1-nano", engine="diffusers-magcache", branches="separate")


@pytest.mark.parametrize("payload", ["trunk-output", "trunk-residual", "velocity"])
def test_the_default_search_keeps_to_payload_rule_and_steps(payload, bench, toys, journal):
    pytest.importorskip("torch")
    from dataclasses import replace

    from budc.compiler.selection.calibration import Calibration
    from budc.compiler.selection.finder import Finder
    from budc.compiler.selection.task import Task

    conditions = toys.conditions(3)
    task = Task(
        denoiser=toys.toy(),
        schedule=toys.schedule(toys.schedulers["euler"](), 8),
        conditions=conditions,
        nfe=4,
        annealing=toys.defaults,
        effort="fast",
        rule="linear",
        payloads=(payload,),
        always=(0, 1),
    )
    result = Finder(Calibration(task, journal)).find(task)
    (branch,) = result.policy.branches
    mask = branch.step_mask()
    assert result.policy.payload == payload
    assert mask.nfe == 4
    assert mask[:2] == (True, True)
    assert branch.step_predictor() == tuple(fixed_rows("linear", mask))
    masks = periodic_masks(8, 4)
    periodic = replace(task, search="known", published_masks=tuple(own.compute_steps for own in masks))
    assert Finder(Calibration(task, journal)).find(periodic).policy.branches[0].step_mask() in masks
