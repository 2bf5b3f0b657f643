"""A mask of the user's own, in both of its forms, and what contradicts it."""

import pytest

from budc.compiler.compile import compile_artifacts
from budc.compiler.given_mask import parse_mask
from budc.compiler.policy_source import make_request, read_source
from budc.schema.errors import UsageError
from budc.schema.mask import StepMask


@pytest.mark.parametrize("text", ["0,3,6", " 0, 3 ,6 ", "#..#..#.", "█··█··█·"])
def test_both_forms_say_the_same(text):
    assert parse_mask(text, 8) == StepMask.from_compute_steps(8, (0, 3, 6))


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("", "--mask: '' is no mask", "--mask 0,3,6"),
        ("0;3", "--mask: '0;3' is no mask", "one of # and ."),
        ("0,-1", "is no mask", "--mask"),
        ("#x..", "is no mask", "--mask"),
        ("0,3,8", "--mask: step 8 is outside a schedule of 8 steps", "name steps from 0 to 7"),
        ("0,3,3", "--mask: step 3 is named twice", "name steps"),
        ("1,3", r"--mask: mask\[0\] is false", "the first one among them"),
        (".#######", r"--mask: mask\[0\] is false", "name steps"),
        ("#..#", "--mask: is of 4 steps, but the run has 8", "--steps 4 runs as many"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(text, message, remedy):
    with pytest.raises(UsageError, match=message) as caught:
        parse_mask(text, 8)
    assert remedy in caught.value.remedy


def resolved(**fields):
    return make_request({}, {"model": "wan2.1-nano", "steps": 8, **fields}).resolve()


def test_a_mask_stands_in_for_budget_and_search(tmp_path):
    plan = resolved(mask="#..#..#.")
    assert (plan.search, plan.mask.compute_steps) == ("given", (0, 3, 6))
    (planned,) = plan.policies
    assert (planned.nfe, planned.budget, planned.name) == (3, "3", "wan2.1-nano-nfe3")
    assert resolved(mask="0,3", fit=True, budget="4x").search == "given-fitted"
    source = tmp_path / "policy.toml"
    source.write_text('model = "wan2.1-nano"\nsteps = 8\nmask = "0,4"\nfit = true\n')
    assert make_request(read_source(source), {}).resolve().mask.nfe == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": "0,3", "budget": "3"}, "--mask: computes 2 steps, but --budget 3 asks for 3"),
        ({"mask": "0,3", "sweep": "2,3"}, "--sweep 2,3: the mask that is given decides this"),
        ({"mask": "0,3", "search": "dp"}, "--search dp: the mask"),
        ({"mask": "0,3", "steps": "auto"}, "--steps auto: the mask"),
        ({"mask": "0,3", "branches": "separate"}, "--branches separate: the mask"),
        ({"budget": "3", "fit": True}, "--fit: no mask is given"),
        ({"budget": "3", "search": "given"}, "--search given: no mask"),
        ({}, "no budget given"),
    ],
    ids=str,
)
def test_what_contradicts_a_mask_is_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        resolved(**fields)


@pytest.fixture
def flags(wan_folder, prompt_file, tmp_path):
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("a tiny green dot sails right over stripes\n")
    files = {"weights": wan_folder, "calibration": prompt_file, "held_out": held_out}
    return {"model": "wan2.1-nano", "steps": 6, "mask": "##..#.", "out": tmp_path / "x.budc.json"} | files


def compiled(flags):
    (artifact,) = compile_artifacts(make_request({}, flags).resolve())
    return artifact.document


def test_a_mask_becomes_a_measured_policy_with_plain_reuse_or_fitted(flags, tmp_path):
    plain = compiled(flags)
    (branch,) = plain.policy.branches
    assert branch.step_mask().compute_steps == (0, 1, 4)
    assert [row for row in branch.predictor if row] == [[1.0]] * 3
    assert (plain.search.algorithm, plain.search.candidates, plain.budget.requested) == ("given", 1, "3")
    assert [baseline.name for baseline in plain.quality.baselines] == ["uniform", "fewer-steps", "full"]
    fitted = compiled(flags | {"fit": True, "out": tmp_path / "fitted.budc.json"})
    assert {tuple(branch.mask) for branch in fitted.policy.branches} == {
        tuple(branch.mask) for branch in [branch]
    }
    assert fitted.search.algorithm == "given-fitted"
    rows = [row for branch in fitted.policy.branches for row in branch.predictor if row]
    assert any(row != [1.0] for row in rows)


@pytest.mark.slow
def test_sigmas_and_coefficients_of_a_mask_may_be_aligned(flags, monkeypatch):
    monkeypatch.setattr("budc.compiler.selection.alignment.epochs", lambda nfe, given: 1)
    document = compiled(flags | {"align": True})
    assert {tuple(branch.mask) for branch in document.policy.branches} == {
        (True, True, False, False, True, False)
    }
    assert any("alignment" in str(value) for value in document.search.settings.values())


def test_a_mask_computes_the_first_step_of_each_denoiser(pair_profile, pair_folder, tmp_path):
    flags = {"model": pair_profile, "weights": pair_folder, "mask": "0,1", "out": tmp_path / "x.budc.json"}
    with pytest.raises(UsageError, match="--mask: step 3 is reused, but there transformer_2 takes over"):
        compiled(flags)
