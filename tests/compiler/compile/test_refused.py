"""Flags that a compile refuses before anything is rolled out."""

import pytest
from flag_compiles import compiled

from budc.compiler.policy_source import make_request
from budc.schema.errors import (
    BudgetImpossible,
    KeyUnusable,
    OutputError,
    UsageError,
    WeightsMissing,
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


def test_a_sweep_needs_a_folder(flags):
    flags = {key: value for key, value in flags.items() if key != "budget"}
    with pytest.raises(OutputError, match="folder"):
        make_request({}, flags | {"sweep": "2,3"}).resolve()


def test_a_trace_does_not_take_the_artifacts_place(flags):
    with pytest.raises(UsageError, match="is where the artifact goes"):
        make_request({}, flags | {"trace": flags["out"]}).resolve()
