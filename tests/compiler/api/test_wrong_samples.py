"""Networks, samples and whatever else is no argument of a compile on tensors."""

import inspect

import pytest
import torch
from toy_networks import Blocks, pair

import budc
from budc.schema.errors import (
    BudcError,
    UsageError,
)


@pytest.mark.parametrize(
    ("changes", "error", "message", "remedy"),
    [
        (
            {"guidance": 5.0},
            UsageError,
            "guidance: 5.0 is not a weight for each branch",
            r'\{"cond": 5, "uncond": -4\} for this scale',
        ),
        (
            {"guidance": {"cond": 5.0, "uncond": 1.0}},
            UsageError,
            "guidance: the weights add up to 6, expected 1",
            "as g and 1 - g",
        ),
        (
            {"guidance": {"cond": None, "uncond": 1.0}},
            UsageError,
            "guidance: .* is not a sequence of n",
            "numbers",
        ),
        (
            {"denoiser": [pair(1.0)[0]]},
            UsageError,
            "denoiser: a list is neither a module nor a pair",
            "nn.Module",
        ),
        ({"denoiser": Blocks}, UsageError, "denoiser: a type is neither a module", "an instance"),
        ({"denoiser": Blocks(), "blocks": 3}, UsageError, "blocks: 3 is no name", "ModuleList"),
        (
            {"conditioning": torch.zeros(8, 2, 3)},
            UsageError,
            "conditioning: a Tensor names no guidance",
            "branch -> ",
        ),
        ({"conditioning": {}}, UsageError, "conditioning: an empty mapping names no", "branch -> tensor"),
        (
            {"conditioning": {"cond": [1]}},
            UsageError,
            r"conditioning\['cond'\]: a list is no tensor",
            "branch -> ",
        ),
        ({"noise": None}, UsageError, "noise: None is no tensor", "pass a tensor"),
        (
            {"noise": torch.zeros(8, 2, 3, dtype=torch.int64)},
            UsageError,
            r"noise is int64 of shape \(8, 2, 3\), expected floating-point",
            "float32",
        ),
        ({"noise": torch.zeros(8)}, UsageError, r"noise is float32 of shape \(8,\), expected", "float32"),
        ({"noise": torch.full((8, 2, 3), float("inf"))}, UsageError, "noise is not finite", "pass a tensor"),
        (
            {"held_out": {"cond": torch.zeros(2, 2, 3)}},
            UsageError,
            "held_out: a dict is not",
            r"held_out=\(cond",
        ),
        (
            {"held_out": ({"cond": torch.zeros(2, 2, 3)}, torch.zeros(2, 2, 3))},
            UsageError,
            r"held_out\[0\] has the branches \['cond'\], conditioning has \['cond', 'uncond'\]",
            "same branches",
        ),
        (
            {"held_out": (dict.fromkeys(("cond", "uncond"), torch.zeros(2, 2, 3)), torch.zeros(2, 4))},
            UsageError,
            r"held_out\[1\] has samples of shape \(4,\), noise has \(2, 3\)",
            "same shape",
        ),
        ({"guidance": None}, UsageError, r"guidance has the branches \[\], conditioning has", "cond"),
        (
            {"noise": torch.zeros(3, 2, 3)},
            UsageError,
            r"conditioning\['cond'\] has 8 samples, noise has 3",
            "every sample",
        ),
    ],
    # A value may print its address.
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_networks_and_samples_are_refused_by_their_names(refuses, changes, error, message, remedy):
    refuses(changes, error, message, remedy)


def test_everything_after_the_denoiser_is_named():
    first, *others = inspect.signature(budc.compile_policy).parameters.values()
    assert first.name == "denoiser"
    assert {parameter.kind for parameter in others} == {inspect.Parameter.KEYWORD_ONLY}


JUNK = (
    None, b"x", "x", "", -1, 0, 2.5, float("nan"), True, [], {}, (), object(), int, len, "\ud800", 10**400, [10**400],
    [None], {"cond": None}, {1: 2}, torch.tensor(3.0), torch.zeros(0), torch.zeros(2, 2).numpy(),
    {"cond": torch.zeros(8, 2, 3), 3: torch.zeros(8, 2, 3)},
)  # fmt: skip


@pytest.mark.parametrize("name", inspect.signature(budc.compile_policy).parameters)
def test_whatever_an_argument_is_only_budc_errors_come_out(compiled, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # A pair of functions has no blocks.
    module = {"denoiser": Blocks()} if name == "blocks" else {}
    refusals = []
    for value in JUNK:
        try:
            assert compiled(**module | {name: value}).nfe == 3
        except BudcError as error:
            refusals.append(error)
    assert all(name in str(refusal) and refusal.remedy for refusal in refusals)
    # None and a few others are what some arguments take.
    assert len(refusals) >= len(JUNK) - 3
