"""`--for`: what an engine leaves no room for, refused before a model is loaded, and the search within what it can run."""

import pytest

from budc.compiler.policy_source import make_request, read_source
from budc.runtimes.sampling.rules import fixed_rows
from budc.runtimes.targets.openvino_genai import periodic_masks
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
        ({**SGLANG, "align": True}, UsageError, "--align: .* has no way to say it"),
        ({**SGLANG, "steps": "auto"}, UsageError, "--steps auto: "),
        ({"engine": "openvino-genai", "mask": "##.#..#.#.#."}, UsageError, "is no mask that OpenVINO"),
        ({"engine": "openvino-genai", "budget": "1"}, BudgetImpossible, "computes the steps 0, 1"),
    ],
)
def test_refusals(tmp_path, monkeypatch, flags, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        plan(**flags)


def test_branches_of_their_own_need_an_engine_that_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan("wan2.1-nano", engine="lightx2v", branches="separate").separate
    with pytest.raises(UsageError, match="has one mask for all branches"):
        plan("wan2.1-nano", engine="diffusers-magcache", branches="separate")


@pytest.mark.parametrize("payload", ["trunk-output", "trunk-residual", "velocity"])
def test_the_default_search_keeps_to_payload_rule_and_steps(payload, bench, toys, journal):
    pytest.importorskip("torch")
    from dataclasses import replace

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
    result = Finder(task, journal).find(task)
    (branch,) = result.policy.branches
    mask = branch.step_mask()
    assert result.policy.payload == payload
    assert mask.nfe == 4
    assert mask[:2] == (True, True)
    assert branch.step_predictor() == tuple(fixed_rows("linear", mask))
    masks = periodic_masks(8, 4)
    periodic = replace(task, search="known", published_masks=tuple(own.compute_steps for own in masks))
    assert Finder(task, journal).find(periodic).policy.branches[0].step_mask() in masks
