from pathlib import Path

import pytest

from budc.compiler.request import check_request, make_request, read_source
from budc.schema.errors import BudgetImpossible, UsageError


def test_flags_override_the_source_and_paths_are_relative_to_it(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('model = "wan2.1-nano"\nbudget = 10\nseed = 3\ncalibration = "prompts.txt"\n')
    request = make_request(read_source(path), {"budget": "2.8x", "seed": None})
    assert (request.model, request.budget, request.seed) == ("wan2.1-nano", "2.8x", 3)
    assert request.calibration == tmp_path / "prompts.txt"


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
        make_request(source, {})


def checked(**fields):
    return check_request(make_request({"model": "wan2.1-nano"}, fields))


def test_a_budget_becomes_evaluations():
    profile, steps, budgets = checked(budget="2.8x")
    assert (profile.name, steps, budgets) == (
        "wan2.1-nano",
        profile.steps,
        {profile.steps * 10 // 28: "2.8x"},
    )
    assert checked(budget="4", steps=12)[1:] == (12, {4: "4"})
    assert checked(budget="4", steps="auto")[1:] == (profile.steps, {4: "4"})


def test_a_sweep_is_several_budgets(tmp_path):
    assert checked(sweep="6, 8,5x", steps=40)[2] == {6: "6", 8: "5x"}
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
    with pytest.raises(BudgetImpossible, match="--budget"):
        checked(sweep=sweep, steps=50)


def test_a_budget_and_a_sweep_are_one_too_many():
    with pytest.raises(UsageError, match="both a budget and a sweep"):
        make_request({"model": "wan2.1-nano", "budget": "6"}, {"sweep": "6,8"})


@pytest.mark.parametrize("flags", [{"align": True}, {"steps": "auto"}], ids=str)
@pytest.mark.parametrize("search", ["paper", "uniform"])
def test_reference_searches_leave_no_prompts_to_judge_by(flags, search):
    with pytest.raises(UsageError, match=f"--search {search} leaves no prompts") as caught:
        checked(budget="6", search=search, **flags)
    assert "joint" in caught.value.remedy
    checked(budget="6", **flags)


@pytest.mark.parametrize(
    "fields", [{"steps": "many"}, {"branches": "apart"}, {"align": "yes"}, {"sweep": 3.5}], ids=str
)
def test_bad_choices_are_refused(fields):
    with pytest.raises(UsageError, match="policy source"):
        make_request({"model": "wan2.1-nano"}, {"budget": "6"} | fields if "sweep" not in fields else fields)


def test_masks_of_their_own_are_refused_where_branches_share_a_forward():
    make = {"budget": "8", "branches": "separate"}
    with pytest.raises(UsageError, match="ZImagePipeline runs its branches in one forward"):
        check_request(make_request({"model": "z-image"}, make))
    check_request(make_request({"model": "wan2.1-nano"}, make))
