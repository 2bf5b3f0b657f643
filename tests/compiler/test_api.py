"""The compiler on tensors: arguments and errors are those of Python, the checks are those of the command line."""

import inspect
import re

import pytest
import torch

import budc
from budc.compiler.budget import parse_budget
from budc.compiler.selection.split import check_arbitrated, searched_on
from budc.option_names import option, python_names, worded
from budc.schema.errors import BudgetImpossible, SemanticsViolation, UsageError


@pytest.fixture
def compiled(toys):
    """Compile for the toy denoiser, with changes to the arguments."""

    def compiled(samples=8, **changes):
        conditions = toys.conditions(samples)
        scheduler = toys.schedulers["euler"]()
        arguments = {
            "conditioning": conditions.embeddings,
            "noise": conditions.noise,
            "scheduler": scheduler,
            "sigmas": toys.schedule(scheduler, 6).sigmas,
            "budget": 3,
            "guidance": {"cond": 3.0, "uncond": -2.0},
            "search": "uniform",
        }
        return budc.compile_policy(toys.toy(), **arguments | changes)

    return compiled


def test_a_policy_its_schedule_and_what_it_cost(compiled, toys):
    result = compiled(held_out=(toys.conditions(4, seed=1).embeddings, toys.conditions(4, seed=1).noise))
    assert sum(result.policy.branches[0].mask) == 3
    assert (len(result.sigmas), len(result.timesteps)) == (7, 6)
    assert result.outcome.forwards.reference == 6 * 8 * 2
    assert result.outcome.forwards.total == (6 + 3) * 8 * 2
    assert list(result.report) == ["policy", "uniform", "fewer-steps"]
    assert result.report["policy"] == result.report["uniform"]


def test_a_factor_is_a_budget_too(compiled):
    assert sum(compiled(budget="2x").policy.branches[0].mask) == 3


def test_a_search_resumes_from_its_folder(compiled, tmp_path):
    first, again = compiled(search="dp", work=tmp_path), compiled(search="dp", work=tmp_path)
    assert (first.policy, first.outcome) == (again.policy, again.outcome)
    assert list(tmp_path.iterdir())


def test_everything_after_the_denoiser_is_named():
    first, *others = inspect.signature(budc.compile_policy).parameters.values()
    assert first.name == "denoiser"
    assert {parameter.kind for parameter in others} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("changes", "error", "message", "remedy"),
    [
        (
            {"budget": 9},
            BudgetImpossible,
            "budget: '9' is 9 evaluations, but a run of 6 steps",
            "ask for 1 to 6",
        ),
        (
            {"budget": "ten"},
            BudgetImpossible,
            "budget: 'ten' is neither",
            r"\(budget=10\) or .* \(budget='2.8x'\)",
        ),
        ({"search": "genetic"}, UsageError, "search: no algorithm named 'genetic'", "use one of joint"),
        (
            {"align": True},
            UsageError,
            "align: search='uniform' leaves no prompts to judge by",
            "use search='joint'",
        ),
        ({"steps": "auto"}, UsageError, "steps='auto': search='uniform' leaves", "use search='joint'"),
        ({"steps": 5}, UsageError, "steps=5 is not 'auto'", "sigmas say"),
        (
            {"samples": 2, "search": "joint", "align": True},
            UsageError,
            "calibration has 2 samples, which leave none",
            "at least three",
        ),
        (
            {"timesteps": [1.0, 2.0]},
            UsageError,
            "timesteps has 2 values and sigmas has 7, expected 6 timesteps",
            "one timestep",
        ),
        (
            {"sigmas": [1.0, 0.5, 0.7]},
            SemanticsViolation,
            r"sigmas\[2\] is 0.7, not below the 0.5",
            "strictly decreasing",
        ),
        ({"guidance": None}, UsageError, r"guidance has the branches \[\], conditioning has", "cond"),
        (
            {"noise": torch.zeros(3, 2, 3)},
            UsageError,
            r"conditioning\['cond'\] has 8 samples, noise has 3",
            "every sample",
        ),
    ],
    ids=str,
)
def test_errors_name_arguments(compiled, changes, error, message, remedy):
    with pytest.raises(error) as caught:
        compiled(**changes)
    for pattern, text in ((message, str(caught.value)), (remedy, caught.value.remedy)):
        assert re.search(pattern, text), text
    assert "--" not in f"{caught.value} {caught.value.remedy}"


def test_the_same_checks_name_flags_on_the_command_line():
    assert (option("budget"), option("budget", 10), option("align", True)) == (
        "--budget",
        "--budget 10",
        "--align",
    )
    with python_names():
        assert (option("budget"), option("budget", 10), option("align", True)) == (
            "budget",
            "budget=10",
            "align=True",
        )
        assert worded("flag", "argument") == "argument"
    assert worded("flag", "argument") == "flag"
    with pytest.raises(BudgetImpossible, match="--budget: 'ten'") as budget:
        parse_budget("ten", 6)
    assert budget.value.remedy == "give evaluations (--budget 10) or a factor of at least 1 (--budget 2.8x)"
    with pytest.raises(UsageError, match="--align: --search paper leaves no prompts to judge by"):
        check_arbitrated("paper", align=True)
    with pytest.raises(UsageError, match="--steps auto: --search paper leaves"):
        check_arbitrated("paper", align=False, auto_steps=True)
    with pytest.raises(UsageError, match="2 calibration prompts leave none"):
        searched_on("joint", 2, arbitrates=True)
