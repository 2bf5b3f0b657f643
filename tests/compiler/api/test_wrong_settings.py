"""Settings of a compile on tensors that are refused, by the names of the arguments."""

from pathlib import Path

import pytest
from diffusers import FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler

from budc.compiler.budget import parse_budget
from budc.compiler.selection.stages import check_arbitrated, stages_of
from budc.option_names import file_names, option, python_names, worded
from budc.schema.errors import (
    BudgetImpossible,
    SemanticsViolation,
    UnsupportedModel,
    UsageError,
)


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
        ({"train": "sigmas"}, UsageError, "train: says what align=True trains", "leave train out"),
        ({"align": True, "train": "masks"}, UsageError, "train: 'masks' is not what", "one of both, sigmas"),
        ({"align": True, "train": ["both"]}, UsageError, "train: a list is not what", "one of both, sigmas"),
        (
            {"search": "paper", "align": True},
            UsageError,
            "align: search='paper' leaves no prompts to judge by",
            "use train='sigmas', the paper's second stage",
        ),
        ({"steps": 5}, UsageError, "steps: 5 is not 'auto'", "sigmas say"),
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
        ({"timesteps": 3.0}, UsageError, "timesteps: 3.0 is not a sequence of numbers", "one timestep"),
        ({"timesteps": [1.0] * 5 + [float("nan")]}, UsageError, "timesteps: number 5 is nan", "one timestep"),
        (
            {"sigmas": None},
            UsageError,
            "sigmas: None is not a sequence of numbers",
            "terminal value included",
        ),
        (
            {"sigmas": [1.0, 0.6, 0.3]},
            UsageError,
            "sigmas end at 0.3, where a run of .* ends at 0",
            "append the",
        ),
        (
            {"sigmas": [900.0, 500.0, 0.0]},
            UsageError,
            "sigmas begin at 900, but .* at most 1",
            "divide timesteps",
        ),
        ({"scheduler": None}, UsageError, "scheduler: None is no scheduler", "pass an instance"),
        (
            {"scheduler": UniPCMultistepScheduler},
            UsageError,
            "scheduler: the class UniPC",
            "pass an instance",
        ),
        (
            {"scheduler": UniPCMultistepScheduler()},
            UnsupportedModel,
            "predict epsilon",
            "prediction_type='flow",
        ),
        (
            {"scheduler": FlowMatchHeunDiscreteScheduler()},
            UnsupportedModel,
            "FlowMatchHeunDiscreteScheduler evaluates the model 2 times a step",
            "one evaluation a step",
        ),
        ({"budget": 2.5}, UsageError, "budget: 2.5 is neither a whole number nor a text", "budget='2.5x'"),
        ({"budget": None}, UsageError, "budget: none is given", "pass one of budget=10, quality="),
        ({"within": 1.0}, UsageError, "budget, within: each says what the budget is", "pass one of"),
        ({"worst": True}, UsageError, "worst: says of which sample quality is", "latent-mse<=0.01"),
        ({"budget": None, "quality": 3}, UsageError, "quality: 3 is no text", "latent-mse<=0.01"),
        (
            {"budget": None, "quality": "psnr>=30"},
            UsageError,
            "quality: a network has no frames, and so no PSNR",
            "latent-mse",
        ),
        (
            {"budget": None, "quality": "latent-mse<=1", "search": "uniform"},
            UsageError,
            "quality: search='uniform' leaves no prompts to judge by",
            "search='joint'",
        ),
        ({"budget": None, "quality": "latent-mse<=1", "worst": 1}, UsageError, "worst: 1 is neither", "True"),
        ({"budget": None, "within": True}, UsageError, "within: True is neither seconds", "within=2.0"),
        (
            {"budget": None, "within": -1.0},
            UsageError,
            "within: '-1.000000s' is no length of",
            "within='2.0s'",
        ),
        ({"budget": None, "within": "soon"}, UsageError, "within: 'soon' is no length", "within='2.0s'"),
        ({"seed": None}, UsageError, "seed: None is no whole number from 0", "seed=0"),
        ({"seed": -1}, UsageError, "seed: -1 is no whole number from 0", "seed=0"),
        ({"batch": 0}, UsageError, "batch: 0 is no whole number from 1", "None"),
        ({"weights": b"x"}, UsageError, "weights: a bytes names no weights", "sha256"),
        ({"work": b"x"}, UsageError, "work: a bytes is no path", "pass a folder"),
        ({"work": ""}, UsageError, "work: '' is no path", "pass a folder"),
        ({"search": None}, UsageError, "search: None is no name", "search='joint'"),
        (
            {"sigmas": [1.0, 0.5, 0.7]},
            SemanticsViolation,
            r"sigmas\[2\] is 0.7, not below the 0.5",
            "strictly decreasing",
        ),
    ],
    # A value may print its address.
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_are_refused_by_their_names(refuses, changes, error, message, remedy):
    refuses(changes, error, message, remedy)


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
        assert option("metric-weights", Path("w")) == "metric_weights='w'"
        assert worded("flag", "argument") == "argument"
    assert option("metric-weights", Path("w")) == "--metric-weights w"
    with file_names("p.toml", {"metric_weights"}):
        assert option("metric-weights", Path("w")) == 'metric-weights = "w" in p.toml'
    assert worded("flag", "argument") == "flag"
    with pytest.raises(BudgetImpossible, match="--budget: 'ten'") as budget:
        parse_budget("ten", 6)
    assert budget.value.remedy == "give evaluations (--budget 10) or a factor of at least 1 (--budget 2.8x)"
    with pytest.raises(UsageError, match="--align: --search paper leaves no prompts to judge by"):
        check_arbitrated("paper", align=True)
    with pytest.raises(UsageError, match="--steps auto: --search paper leaves"):
        check_arbitrated("paper", align=False, auto_steps=True)
    with pytest.raises(UsageError, match="2 calibration prompts leave none"):
        stages_of("joint", "balanced", 8, 2, arbitrates=True)
