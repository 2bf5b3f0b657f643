"""The compiler on tensors: arguments and errors are those of Python, the checks are those of the command line."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler
from torch import nn

import budc
from budc.compiler.budget import parse_budget
from budc.compiler.denoisers.experts import ExpertSwitch
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.compiler.network import finding
from budc.compiler.selection.stages import check_arbitrated, stages_of
from budc.option_names import file_names, option, python_names, worded
from budc.schema.errors import (
    BudcError,
    BudgetImpossible,
    CompileError,
    JournalCorrupt,
    SemanticsViolation,
    UnsupportedModel,
    UsageError,
)
from budc.schema.evaluation import Latency


@pytest.fixture
def compiled(toys):
    """Compile for the toy denoiser, with changes to the arguments."""

    def compiled(denoiser=None, samples=8, **changes):
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
        return budc.compile_policy(toys.toy() if denoiser is None else denoiser, **arguments | changes)

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


def test_the_smallest_budget_for_a_quality(compiled):
    asked = {"budget": None, "search": "joint", "effort": "fast"}
    result = compiled(quality="latent-mse<=0.05", **asked)
    curve = [note for note in result.outcome.notes if "evaluations: latent-mse" in note]
    kept = {int(note.split()[0]): not note.endswith("not kept") for note in curve}
    assert kept[result.nfe]
    assert all(not held for nfe, held in kept.items() if nfe < result.nfe)
    assert result.nfe == 1 or result.nfe - 1 in kept
    assert result.outcome.settings["choice2"] in result.outcome.notes
    assert result.origin.budget == "latent-mse<=0.05"
    worst = compiled(quality="latent-mse<=0.05", worst=True, **asked)
    assert worst.nfe >= result.nfe
    assert worst.origin.budget == "latent-mse.worst<=0.05"
    with pytest.raises(BudgetImpossible, match=r"^quality: no budget below the full run of 6 steps keeps"):
        compiled(quality="latent-mse<=1e-30", **asked)


def test_the_largest_budget_within_a_time(compiled, monkeypatch, toys):
    def timed(nfe, *_):
        return Latency(median=0.5 * nfe, fastest=0.4 * nfe, slowest=float(nfe), repeats=3)

    held_out = (toys.conditions(4, seed=1).embeddings, toys.conditions(4, seed=1).noise)
    assert compiled(budget=None, within=60.0, held_out=held_out).nfe == 6
    monkeypatch.setattr(finding, "timed_loop", timed)
    result = compiled(budget=None, within="1600ms", held_out=held_out)
    assert (result.nfe, result.origin.budget) == (3, "1600ms")
    assert any(note.startswith("4 evaluations: the loop took 2 s") for note in result.outcome.notes)
    # The baselines have as many evaluations as what was found.
    assert result.report["policy"] == result.report["uniform"]
    with pytest.raises(BudgetImpossible, match=r"^within: 0.1 s are too few; 1 evaluations: the loop took"):
        compiled(budget=None, within=0.1)


class Blocks(nn.Module):
    """A small network with two equal lists of blocks, one of which is its trunk."""

    def __init__(self, seed=0, gain=1.0, trunk="blocks"):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.others = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.register_buffer("shift", torch.zeros(3), persistent=False)
        self.gain, self.trunk = gain, trunk

    def forward(self, latents, timestep, condition):
        hidden = latents + condition + self.shift
        for block in getattr(self, self.trunk):
            hidden = hidden + torch.tanh(block(hidden))
        return self.gain * hidden


def test_a_search_resumes_from_its_folder(compiled, tmp_path):
    network, calls = Blocks(), []
    network.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    first, computed = compiled(network, search="dp", work=tmp_path), len(calls)
    again = compiled(network, search="dp", work=tmp_path)
    assert (first.policy, first.outcome) == (again.policy, again.outcome)
    assert len(calls) - computed < computed / 2
    assert list(tmp_path.iterdir())


def shifted():
    network = Blocks()
    network.shift += 1
    return network


def pair(gain):
    def reuse(residual, latents, timestep, condition):
        return latents - residual

    def compute(latents, timestep, condition):
        residual = gain * torch.tanh(condition - latents)
        return latents - residual, residual

    return compute, reuse


def switch(boundary, seed=1):
    weights = {"cond": 3.0, "uncond": -2.0}
    return ExpertSwitch([ModuleDenoiser(Blocks(s), weights) for s in (0, seed)], [boundary])


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({}, {"denoiser": Blocks(seed=1)}),
        ({}, {"denoiser": shifted()}),
        ({}, {"denoiser": Blocks(gain=2.0)}),
        ({}, {"seed": 1}),
        ({}, {"denoiser": Blocks(trunk="others"), "blocks": "others"}),
        ({}, {"scheduler": FlowMatchEulerDiscreteScheduler(num_train_timesteps=500)}),
        ({}, {"scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)}),
        ({}, {"guidance": {"cond": 2.0, "uncond": -1.0}}),
        ({}, {"batch": 1}),
        ({"denoiser": pair(1.0), "weights": "a"}, {"denoiser": pair(2.0), "weights": "b"}),
        ({"denoiser": switch(500.0)}, {"denoiser": switch(500.0, seed=2)}),
        ({"denoiser": switch(500.0)}, {"denoiser": switch(700.0)}),
    ],
    ids=[
        "weights", "buffer", "attribute", "seed", "blocks", "scheduler settings", "scheduler", "guidance", "batch",
        "functions", "expert", "boundary",
    ],
)  # fmt: skip
def test_a_folder_resumes_nothing_but_the_same_call(compiled, tmp_path, first, other):
    given = {"denoiser": Blocks(), "timesteps": [900.0, 800.0, 700.0, 600.0, 300.0, 100.0], "work": tmp_path}
    compiled(**given | first)
    with pytest.raises(JournalCorrupt, match="belongs to another compile") as caught:
        compiled(**given | first | other)
    assert "work=" in caught.value.remedy


def test_equal_networks_resume_each_other(compiled, tmp_path):
    first = compiled(Blocks(), search="dp", work=tmp_path)
    assert compiled(Blocks(), search="dp", work=tmp_path).policy == first.policy
    with pytest.raises(JournalCorrupt):
        compiled(Blocks(seed=1), search="dp", work=tmp_path)
    # Its user may name a network, which then is not hashed.
    named = tmp_path / "named"
    compiled(Blocks(), work=named, weights="mine")
    compiled(Blocks(), work=named, weights="mine")


@pytest.mark.parametrize("kind", ["functions", "denoiser", "expert"])
def test_functions_do_not_resume_without_a_name_for_their_weights(compiled, toys, tmp_path, kind):
    denoiser = {
        "functions": pair(1.0),
        "denoiser": toys.toy(),
        "expert": ExpertSwitch([toys.toy(), toys.toy()], [500.0]),
    }[kind]
    with pytest.raises(UsageError, match=r"work: the weights behind this .* cannot be read") as caught:
        compiled(denoiser, work=tmp_path)
    assert "weights=" in caught.value.remedy
    assert compiled(denoiser, work=tmp_path, weights="a").policy == compiled(denoiser).policy


def test_weights_that_are_not_in_memory_cannot_be_told_from_others(compiled, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"Blocks\.blocks\.0\.weight is not in memory") as caught:
        compiled(Blocks().to("meta"), work=tmp_path)
    assert "weights=" in caught.value.remedy


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
        ({"search": None}, UsageError, "search: None is no name", "search='joint'"),
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
    ids=lambda value: (
        "-".join(value) if isinstance(value, dict) else ""
    ),  # a value's text may hold its address
)
def test_errors_name_arguments(compiled, changes, error, message, remedy):
    with pytest.raises(error) as caught:
        compiled(**changes)
    for pattern, text in ((message, str(caught.value)), (remedy, caught.value.remedy)):
        assert re.search(pattern, text), text
    assert "--" not in f"{caught.value} {caught.value.remedy}"


class Growing(nn.Module):
    """Its blocks lengthen the hidden state."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, latents, timestep, condition):
        hidden = latents
        for block in self.blocks:
            hidden = torch.cat([hidden, block(hidden)], dim=1)
        return hidden[:, : latents.shape[1]]


def cached_of(length):
    """A network that caches `length(step's timestep)` rows of its latents."""

    def compute(latents, timestep, condition):
        return latents / 2, latents[:, : length(float(timestep[0]))]

    return compute, lambda cached, latents, timestep, condition: latents / 3


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (Growing(), r"turn a hidden state of shape \(.*, 2, 3\) into one of \(.*, 16, 3\)"),
        (
            cached_of(lambda timestep: 2 if timestep > 500 else 1),
            r"caches a tensor of shape \(.*, 2, 3\) at step 0 and of \(.*, 1, 3\) at step 4",
        ),
    ],
    ids=["module", "functions"],
)
def test_what_cannot_be_reused_because_its_shape_changes_is_refused(compiled, denoiser, message):
    with pytest.raises(UnsupportedModel, match=message):
        compiled(denoiser)


def test_a_policy_that_diverges_on_held_out_samples_is_none(compiled, toys):
    def diverging(level):
        def reuse(cached, latents, timestep, condition):
            return latents * (float("inf") if latents.abs().max() > level else 0.5)

        return cached_of(lambda timestep: 2)[0], reuse

    held_out = toys.conditions(4, seed=1)
    given = held_out.embeddings, 1e6 * held_out.noise
    with pytest.raises(CompileError, match="final latents, or those of the full run, are not finite"):
        compiled(diverging(1e4), held_out=given)
    plain = compiled(diverging(1e4), held_out=(held_out.embeddings, held_out.noise))
    assert list(plain.report) == ["policy", "uniform", "fewer-steps"]


def test_what_is_meant_is_accepted(compiled, toys, tmp_path):
    expected = compiled()
    sigmas, timesteps = torch.tensor(expected.sigmas, dtype=torch.float64), torch.tensor(expected.timesteps)
    assert compiled(sigmas=sigmas, timesteps=timesteps).policy == expected.policy
    assert compiled(sigmas=sigmas.numpy(), work=str(tmp_path), weights="toy").policy == expected.policy
    assert compiled(noise=toys.conditions(8).noise.double()).policy == expected.policy
    assert compiled(list(pair(1.0))).policy == compiled(pair(1.0)).policy


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


def test_no_sample_is_held_out_that_the_policy_was_selected_on(compiled, toys):
    calibration, others = toys.conditions(8), toys.conditions(4, seed=1)
    with pytest.raises(UsageError, match="held_out: its sample 0 is calibration sample 0") as caught:
        compiled(held_out=(calibration.embeddings, calibration.noise))
    assert "not among the calibration samples" in caught.value.remedy
    mixed = {name: torch.cat([others.embeddings[name], t[5:6]]) for name, t in calibration.embeddings.items()}
    with pytest.raises(UsageError, match="held_out: its sample 4 is calibration sample 5"):
        compiled(held_out=(mixed, torch.cat([others.noise, calibration.noise[5:6]])))
    # The same prompts from other noise are other samples.
    assert compiled(held_out=(calibration.embeddings, toys.conditions(8, seed=1).noise)).report


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
