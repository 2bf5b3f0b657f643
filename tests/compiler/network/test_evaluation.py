"""A policy for a network of one's own, evaluated: figures, rivals, and a file that others verify."""

import contextlib
import inspect
import json
import math
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import budc
from budc.cli.root import root
from budc.compiler.comparison.rivals import RIVALS
from budc.compiler.denoisers.experts import ExpertSwitch
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.compiler.rollouts.metrics import latent_errors
from budc.schema.attestation import read_evaluation
from budc.schema.bounds import parse_bounds
from budc.schema.errors import BudcError, UsageError, WeightsMismatch

SIGMAS = [1 - step / 6 for step in range(7)]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(8, 3)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, latents, timestep, condition):
        hidden = self.enter(latents) + condition[:, None] * timestep[:, None, None] / 1000
        for layer in self.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        return self.leave(hidden)


def samples(first, last):
    torch.manual_seed(9)
    text, noise = torch.randn(12, 8), torch.randn(12, 2, 3)
    return {"text": text[first:last], "empty": torch.zeros(last - first, 8)}, noise[first:last]


CALIBRATION, HELD_OUT = samples(0, 6), samples(6, 12)


def compiled(**changes):
    conditioning, noise = CALIBRATION
    arguments = {
        "conditioning": conditioning,
        "noise": noise,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "sigmas": SIGMAS,
        "budget": 3,
        "guidance": {"text": 3.0, "empty": -2.0},
        "blocks": "layers",
        "search": "dp",
        "held_out": HELD_OUT,
    }
    return budc.compile_policy(Net(), **arguments | changes)


def evaluated(policy, network=None, measured=HELD_OUT, **options):
    scheduler = options.pop("scheduler", None) or FlowMatchEulerDiscreteScheduler()
    return budc.evaluate(policy, network or Net(), *measured, scheduler, **{"repeats": 0} | options)


@pytest.fixture(scope="module")
def place(tmp_path_factory, key_pair):
    """A folder with a signed policy and the keys of its publisher, who is an evaluator as well."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "release.key").write_bytes(key_pair.private)
    (folder / "release.pub").write_bytes(key_pair.public)
    compiled().save(folder / "net.budc.json", key=folder / "release.key")
    return folder


def test_the_figures_are_those_of_the_report_and_of_a_run():
    policy = compiled()
    evaluation = evaluated(policy)
    assert list(evaluation.methods) == ["policy", "fewer-steps", "uniform", "full"]
    for name in ("policy", "fewer-steps", "uniform"):
        assert evaluation.methods[name].metric("latent-mse") == policy.report[name]
    full = evaluated(policy).methods["full"]
    assert (full.nfe, full.forwards, full.metric("latent-mse").worst) == (6, 12, 0)
    latents = [
        budc.run(given, Net(), *HELD_OUT, FlowMatchEulerDiscreteScheduler())
        for given in (policy, compiled(budget=6, search="uniform"))
    ]
    assert list(evaluation.methods["policy"].samples["latent-mse"]) == latent_errors(*latents)


FITTED = "taylorseer-1,magcache,dpcache,meancache,paper"


@pytest.mark.parametrize("against", [FITTED, pytest.param("all", marks=pytest.mark.slow)])
def test_rivals_are_fitted_on_the_calibration_samples(place, short_search, against):
    told = []
    evaluation = evaluated(
        place / "net.budc.json",
        against=against,
        calibration=CALIBRATION,
        repeats=2,
        trust=place / "release.pub",
        progress=lambda *event: told.append(event),
    )
    own = {name for name, rival in RIVALS.items() if rival.runs_on(None)}
    asked = own if against == "all" else set(FITTED.split(","))
    assert {"taylorseer-2", "lemica", "ld3", "dyweight", "paper-aligned"} <= own - set(FITTED.split(","))
    left_out = {note.name for note in evaluation.not_measured}
    assert evaluation.methods.keys() | left_out == asked | {"policy", "full"}
    for name, method in evaluation.methods.items():
        assert method.latency.repeats == 2
        assert name in ("full", "magcache") or method.nfe == 3
        assert math.isfinite(method.metric("latent-mse").mean)
    assert evaluation.methods["dpcache"].fitting_forwards == 6 * 2 * 6
    assert {label for label, _, _ in told} >= {"methods on the samples", "latency of the denoising loop"}


def test_a_signed_evaluation_is_verified_and_required_from_the_command_line(place):
    evaluation = evaluated(place / "net.budc.json", trust=place / "release.pub")
    path = evaluation.save(place / "net.evaluation.json", key=place / "release.key")
    assert read_evaluation(path).document.settings[0].latents == [2, 3]
    (place / "trust.toml").write_text(
        '[[keys]]\nfile = "release.pub"\nroles = ["publisher", "evaluator"]\n', encoding="utf-8"
    )
    command = ["verify", str(place / "net.budc.json"), "--trust", str(place / "trust.toml"), "--json"]
    done = CliRunner().invoke(root, [*command, "--require-evaluation", "latent-mse<=1000,n>=6"])
    assert done.exit_code == 0, done.output
    assert "net.evaluation.json" in json.dumps(json.loads(done.stdout))
    requiring = replace(budc.Trust.load(place / "trust.toml"), required=parse_bounds("n>=7", "trust.toml"))
    assert evaluated(place / "net.budc.json", trust=requiring).methods
    refused = CliRunner().invoke(root, [*command, "--require-evaluation", "n>=7"])
    assert "n >= 7 is required" in str(refused.exception) + refused.output
    shown = CliRunner().invoke(root, ["inspect", str(path)])
    assert "latents 2 × 3" in shown.output
    page = place / "report.html"
    CliRunner().invoke(root, ["report", str(place), "--out", str(page)], catch_exceptions=False)
    assert "measured by an evaluation" in page.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")
def test_trained_sigmas_need_those_of_the_full_run(tmp_path):
    policy = compiled()
    sigmas = (1.0, *(sigma * 0.98 for sigma in SIGMAS[1:]))
    trained = replace(
        policy,
        sigmas=sigmas,
        timesteps=tuple(1000 * sigma for sigma in sigmas[:-1]),
        outcome=replace(policy.outcome, settings={"aligned": True}),
    )
    artifact = trained.save(tmp_path / "aligned.budc.json")
    with pytest.raises(UsageError, match="sigmas: net-nfe3 has sigmas of its own"):
        evaluated(artifact, allow_unsigned=True)
    given = evaluated(artifact, sigmas=SIGMAS, allow_unsigned=True).methods
    assert given["full"].nfe == 6
    assert given["policy"].samples == evaluated(trained).methods["policy"].samples
    assert given["fewer-steps"].samples == evaluated(policy).methods["fewer-steps"].samples
    with pytest.raises(UsageError, match="sigmas: they have 5 steps, the policy was searched on 6"):
        evaluated(artifact, sigmas=[1 - step / 5 for step in range(6)], allow_unsigned=True)


def test_a_rival_that_two_networks_cannot_run_is_left_out():
    second = ModuleDenoiser(Net(), {"text": 2.0, "empty": -1.0}, "layers")
    first = ModuleDenoiser(Net(), {"text": 3.0, "empty": -2.0}, "layers")
    pair = ExpertSwitch([first, second], boundaries=[450.0])
    conditioning, noise = CALIBRATION
    policy = budc.compile_policy(
        pair,
        conditioning=conditioning,
        noise=noise,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        sigmas=SIGMAS,
        budget=3,
        guidance={"text": 3.0, "empty": -2.0},
        search="uniform",
        held_out=HELD_OUT,
    )
    evaluation = evaluated(policy, pair, against="uniform,taylorseer-2", calibration=CALIBRATION)
    assert evaluation.methods["policy"].samples == evaluation.methods["uniform"].samples
    (note,) = evaluation.not_measured
    assert (note.name, "combines" in note.reason) == ("taylorseer-2", True)


REFUSED = {
    "no samples to fit on": ({"against": "dpcache"}, r"against: dpcache must be fitted"),
    "samples that are measured": (
        {"against": "dpcache", "calibration": HELD_OUT},
        r"calibration: its sample 0 is sample 0 of those",
    ),
    "no pair": ({"calibration": 3}, r"calibration: 3 is not conditioning and noise"),
    "other shapes": (
        {"calibration": (CALIBRATION[0], torch.zeros(6, 3, 3))},
        r"calibration: its branches or the shape of its noise",
    ),
    "a rival of transformers": ({"against": "teacache"}, r"against: teacache looks into a transformer"),
    "an unknown rival": ({"against": ["unifrom"]}, r"against: 'unifrom' is no method"),
    "no names": ({"against": 3}, r"against: 3 names no rivals"),
    "no rounds": ({"repeats": -1}, r"repeats: -1 is no whole number"),
    "timesteps alone": ({"timesteps": [1, 2]}, r"timesteps: they go with sigmas"),
    "calibration samples": ({"measured": CALIBRATION}, r"the samples that the policy was searched on"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_by_its_name(place, options, message):
    with pytest.raises(UsageError, match=message):
        evaluated(place / "net.budc.json", trust=place / "release.pub", **options)


def test_nothing_else_is_evaluated_than_what_the_artifact_is_for(place):
    with pytest.raises(BudcError, match=r"not by any|no trusted key"):
        evaluated(place / "net.budc.json")
    changed = Net()
    changed.leave.weight.data.mul_(1.01)
    with pytest.raises(WeightsMismatch):
        evaluated(place / "net.budc.json", changed, trust=place / "release.pub")
    with pytest.raises(UsageError, match="it was not saved"):
        evaluated(compiled()).save(place / "x.evaluation.json")
    evaluation = evaluated(place / "net.budc.json", trust=place / "release.pub")
    with pytest.raises(UsageError, match=r"does not end with \.evaluation\.json"):
        evaluation.save(place / "x.json")


WEIRD = [
    None,
    3,
    -1,
    0.5,
    float("nan"),
    "x",
    b"x",
    [],
    [1, "a"],
    {},
    {"a": 1},
    object(),
    lambda: None,
    torch.ones(2),
]


@pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")
@pytest.mark.parametrize("name", inspect.signature(budc.evaluate).parameters)
def test_whatever_an_argument_is_only_budc_errors_come_out(place, name):
    given = {
        "policy": place / "net.budc.json",
        "denoiser": Net(),
        "conditioning": HELD_OUT[0],
        "noise": HELD_OUT[1],
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "against": "none",
        "repeats": 0,
        "trust": place / "release.pub",
    }
    for value in WEIRD:
        with contextlib.suppress(BudcError):
            budc.evaluate(**given | {name: value})
