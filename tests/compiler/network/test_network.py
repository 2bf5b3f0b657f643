"""A policy for a network of one's own: searched, saved, verified and run, with the same latents to the last bit."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from safetensors.torch import save_file
from torch import nn

import budc
from budc.compiler.denoisers.callables import CallableDenoiser
from budc.compiler.denoisers.experts import ExpertSwitch
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.runtimes.admission.settings import UncalibratedWarning
from budc.runtimes.admission.trust import UnsignedWarning
from budc.schema.artifact import read
from budc.schema.errors import (
    BudcError,
    CalibrationMismatch,
    KeyUnusable,
    OutputError,
    RefusedRun,
    Unsigned,
    UnsupportedModel,
    UsageError,
    WeightsMismatch,
    WeightsMissing,
)

WEIGHTS = {"text": 3.0, "empty": -2.0}


class Net(nn.Module):
    def __init__(self, seed=0, width=8):
        super().__init__()
        torch.manual_seed(seed)
        self.enter, self.leave = nn.Linear(3, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.others = nn.ModuleList()

    def forward(self, latents, timestep, condition):
        hidden = self.enter(latents) + condition[:, None] * timestep[:, None, None] / 1000
        for layer in self.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        return self.leave(hidden)


def functions(net):
    """The same network as a pair of functions."""

    def compute(latents, timestep, condition):
        entering = hidden = net.enter(latents) + condition[:, None] * timestep[:, None, None] / 1000
        for layer in net.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        return net.leave(hidden), hidden - entering

    def reuse(cached, latents, timestep, condition):
        return net.leave(net.enter(latents) + condition[:, None] * timestep[:, None, None] / 1000 + cached)

    return compute, reuse


def switch():
    return ExpertSwitch(
        [
            ModuleDenoiser(Net(0), WEIGHTS, "layers"),
            ModuleDenoiser(Net(1), {"text": 2.0, "empty": -1.0}, "layers"),
        ],
        boundaries=[500.0],
    )


def samples(first, last):
    torch.manual_seed(9)
    text, noise = torch.randn(12, 8), torch.randn(12, 2, 3)
    return {"text": text[first:last], "empty": torch.zeros(last - first, 8)}, noise[first:last]


HELD_OUT = samples(8, 12)


def compiled(denoiser, **changes):
    conditioning, noise = samples(0, 8)
    arguments = {
        "conditioning": conditioning,
        "noise": noise,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "sigmas": [1 - step / 6 for step in range(7)],
        "budget": 3,
        "guidance": WEIGHTS,
        "blocks": "layers",
        "search": "uniform",
        "held_out": HELD_OUT,
    }
    return budc.compile_policy(denoiser, **arguments | changes)


def run(policy, denoiser, function=budc.run, **options):
    return function(
        policy, denoiser, *HELD_OUT, options.pop("scheduler", FlowMatchEulerDiscreteScheduler()), **options
    )


@pytest.fixture
def saved(tmp_path, key_pair):
    """Save a compiled policy, signed; what runs it must be told whom to trust."""
    (tmp_path / "release.key").write_bytes(key_pair.private)
    (tmp_path / "release.pub").write_bytes(key_pair.public)

    def saved(policy, **options):
        return policy.save(tmp_path / "x.budc.json", key=tmp_path / "release.key", **options)

    saved.trust = tmp_path / "release.pub"
    saved.path = tmp_path / "x.budc.json"
    return saved


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
@pytest.mark.parametrize("kind", ["module", "functions", "experts"])
def test_a_run_ends_where_the_search_measured_it_to_the_last_bit(saved, kind, scheduler):
    schedulers = {
        "euler": FlowMatchEulerDiscreteScheduler,
        "unipc": lambda: UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    }
    denoiser = {"module": Net, "functions": lambda: functions(Net()), "experts": switch}[kind]()
    weights = Net().state_dict() if kind == "functions" else None
    sigmas = [0.9999, 0.85, 0.7, 0.5, 0.3, 0.1, 0.0]
    policy = compiled(denoiser, scheduler=schedulers[scheduler](), sigmas=sigmas, search="joint")
    artifact = saved(policy, weights=weights)
    options = {"scheduler": schedulers[scheduler](), "weights": weights, "trust": saved.trust}
    latents = run(policy, denoiser, **options | {"trust": None})
    for source in (artifact, saved.path, budc.open_artifact(saved.path, budc.Trust.from_pem(saved.trust))):
        assert torch.equal(run(source, denoiser, **options), latents)
    full = run(
        compiled(denoiser, scheduler=schedulers[scheduler](), sigmas=sigmas, budget=6),
        denoiser,
        **options | {"trust": None},
    )
    assert policy.report["policy"] == latent_metric(latent_errors(latents, full))
    # The same steps in a loop with the real scheduler.
    stepper, loop = schedulers[scheduler](), HELD_OUT[1]
    for step in run(artifact, denoiser, budc.steps, **options):
        if step.index == 0:
            stepper.set_timesteps(6)
            stepper.sigmas = torch.tensor(policy.sigmas)
            stepper.timesteps = torch.tensor(policy.timesteps)
            stepper.set_begin_index(0)
        assert step.timestep == pytest.approx(float(stepper.timesteps[step.index]))
        assert bool(step.computed) == policy.policy.branches[0].mask[step.index] or kind == "experts"
        loop = stepper.step(step.velocity(loop), stepper.timesteps[step.index], loop, return_dict=False)[0]
    torch.testing.assert_close(loop, latents, rtol=1e-4, atol=1e-5)


def test_the_artifact_says_what_was_compiled_and_for_what(saved):
    net = Net()
    policy = compiled(net, seed=3)
    document = saved(policy, revision=2).document
    assert (document.name, document.revision, document.model.family) == ("net-nfe3", 2, "net")
    (denoiser,) = document.model.denoisers
    assert (denoiser.class_name, denoiser.blocks) == ("Net", "layers")
    assert [(item.branch, item.weight) for item in denoiser.guidance] == list(WEIGHTS.items())
    assert (list(document.model.latents), document.sampler.guidance) == ([2, 3], 3.0)
    assert document.search.seed == 3
    assert document.quality.metrics[0] == policy.report["policy"]
    assert [item.name for item in document.quality.baselines] == ["uniform", "fewer-steps", "full"]
    assert (document.quality.calibration.size, document.quality.held_out.size) == (8, 4)
    assert saved(policy, name="mine", family="nets").document.name == "mine"


def test_files_are_bound_by_content_and_by_tensor_root(saved, tmp_path):
    net = Net()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    policy = compiled(net)
    in_memory = saved(policy).document.model
    document = saved(policy, weights=tmp_path / "net.safetensors").document
    assert document.model.denoisers == in_memory.denoisers
    assert list(document.model.variants[0].files) == ["net.safetensors"]
    assert in_memory.variants == []
    pair = functions(net)
    artifact = saved(compiled(pair), weights=[tmp_path / "net.safetensors"])
    assert run(artifact, pair, weights=net, trust=saved.trust).shape == HELD_OUT[1].shape
    save_file(Net(1).state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(WeightsMismatch, match="tensor root"):
        run(artifact, pair, weights=tmp_path / "net.safetensors", trust=saved.trust)
    with pytest.raises(WeightsMismatch, match="those of the Net in memory"):
        saved(policy, weights=tmp_path / "net.safetensors")


def test_weights_that_changed_since_are_refused_and_run_where_that_is_allowed(saved):
    net = Net()
    artifact = saved(compiled(net))
    before = run(artifact, net, trust=saved.trust)
    net.leave.weight.data.mul_(1.001)
    with pytest.raises(WeightsMismatch, match="weights: network has tensor root") as refusal:
        run(artifact, net, trust=saved.trust)
    assert "load the weights" in refusal.value.remedy
    with pytest.warns(UncalibratedWarning, match="tensor root"):
        assert not torch.equal(run(artifact, net, trust=saved.trust, allow_uncalibrated=True), before)
    with pytest.raises(WeightsMismatch):
        run(artifact, Net(width=8).half().float(), trust=saved.trust)


def test_weights_that_changed_since_the_search_are_not_what_the_policy_is_saved_for(tmp_path):
    net = Net()
    policy = compiled(net)
    net.leave.weight.data.mul_(1.001)
    with pytest.raises(WeightsMismatch, match="those that were searched on had sha256:"):
        policy.save(tmp_path / "x.budc.json")
    net.leave.weight.data.copy_(Net().leave.weight)
    policy.save(tmp_path / "x.budc.json")


@pytest.mark.parametrize(
    ("branch", "weight", "message"),
    [
        ("a b", 3.0, "cannot hold the branch 'a b'"),
        ("a", 2000.0, "the weight 2000 of a"),
    ],
)
def test_branches_that_an_artifact_cannot_hold_are_refused(tmp_path, branch, weight, message):
    conditioning, _ = samples(0, 8)
    named = {branch: conditioning["text"], "empty": conditioning["empty"]}
    policy = compiled(
        Net(), conditioning=named, guidance={branch: weight, "empty": 1 - weight}, held_out=None
    )
    with pytest.raises(UsageError, match=message):
        policy.save(tmp_path / "x.budc.json", unmeasured=True)
    with pytest.raises(UsageError, match="conditioning: the branch 3 is no text"):
        compiled(Net(), conditioning={3: conditioning["text"]}, guidance=None)


def test_nothing_runs_that_nobody_trusted_has_signed(saved, tmp_path):
    net = Net()
    saved(compiled(net))
    with pytest.raises(BudcError, match=r"not by any|no trusted key"):
        run(saved.path, net)
    compiled(net).save(tmp_path / "unsigned.budc.json")
    with pytest.raises(Unsigned):
        run(tmp_path / "unsigned.budc.json", net, trust=saved.trust)
    with pytest.warns(UnsignedWarning):
        run(tmp_path / "unsigned.budc.json", net, allow_unsigned=True)


REFUSED = {
    "another class": ({"denoiser": nn.Sequential()}, UnsupportedModel, "blocks|of class"),
    "functions for a module": (
        {"denoiser": functions(Net())},
        UnsupportedModel,
        "of class functions, .* of class Net",
    ),
    "two networks for one": ({"denoiser": switch()}, UnsupportedModel, "of class Net, Net"),
    "another scheduler": (
        {"scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)},
        CalibrationMismatch,
        "scheduler: the policy was calibrated for FlowMatchEuler",
    ),
    "another setting of it": (
        {"scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0)},
        CalibrationMismatch,
        r"scheduler\.shift",
    ),
    "no scheduler": ({"scheduler": None}, UsageError, "scheduler: None is no scheduler"),
    "another branch": (
        {"conditioning": {"text": HELD_OUT[0]["text"]}},
        UsageError,
        "conditioning has the branches",
    ),
    "another shape": ({"noise": torch.randn(4, 3, 3)}, CalibrationMismatch, r"latents: .*\(2, 3\).*\(3, 3\)"),
    "no noise": ({"noise": None}, UsageError, "noise: None is no tensor"),
    "no batch": ({"batch": 0}, UsageError, "batch: 0 is no whole number"),
    "no policy": ({"policy": None}, UsageError, "artifact: None"),
    "guidance of its own": (
        {"denoiser": ModuleDenoiser(Net(), {"text": 4.0, "empty": -3.0}, "layers")},
        UnsupportedModel,
        "guided by",
    ),
    "another list of blocks": (
        {"denoiser": ModuleDenoiser(Net(), WEIGHTS, "others")},
        UnsupportedModel,
        "with the blocks others",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("function", [budc.run, budc.steps], ids=["run", "steps"])
def test_what_the_policy_is_not_for_is_refused_before_anything_runs(saved, case, function):
    changes, error, message = REFUSED[case]
    artifact = saved(compiled(Net()))
    given = {
        "policy": artifact,
        "denoiser": Net(),
        "conditioning": HELD_OUT[0],
        "noise": HELD_OUT[1],
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "trust": saved.trust,
    }
    with pytest.raises(error, match=message):
        function(**given | changes)


def test_a_policy_for_a_pipeline_is_no_policy_for_a_network(make_document):
    document = make_document()
    with pytest.warns(UnsignedWarning), pytest.raises(UsageError, match="is for the pipeline") as refusal:
        run(document, Net(), allow_unsigned=True)
    assert refusal.value.remedy == "use budc.apply"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": None}, UsageError, "weights: those behind functions cannot be seen"),
        ({"weights": {}}, UsageError, "there is no tensor in it"),
        ({"weights": {"a": 1}}, UsageError, r"weights\['a'\]: 1 is no tensor"),
        ({"weights": {"a": torch.empty(1, device="meta")}}, UsageError, "is not in memory"),
        ({"weights": 3}, UsageError, "weights: 3 holds no weights"),
        ({"weights": "nowhere.safetensors"}, WeightsMissing, "nowhere.safetensors"),
        ({"weights": "net.pt"}, UsageError, "is no safetensors file"),
        ({"weights": ["a/x.safetensors", "b/x.safetensors"]}, UsageError, "in different folders"),
        ({"name": "a b"}, UsageError, "name: 'a b' is no name"),
        ({"family": 3}, UsageError, "family: 3 is no name"),
        ({"revision": 0}, UsageError, "revision: 0 is no whole number"),
        ({"key": "nowhere.key"}, KeyUnusable, "nowhere.key"),
        ({"key": b"key"}, UsageError, "key: a bytes is no path"),
        ({"path": ""}, UsageError, "path: '' is no path"),
        ({"path": "/nowhere/x.budc.json"}, OutputError, "cannot write"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_the_words_of_python(
    tmp_path, monkeypatch, options, error, message
):
    monkeypatch.chdir(tmp_path)
    policy = compiled(functions(Net()))
    with pytest.raises(error, match=message):
        policy.save(**{"path": "x.budc.json", "weights": Net().state_dict()} | options)
    assert list(Path().iterdir()) == []


def test_without_held_out_samples_it_is_saved_only_on_demand(tmp_path):
    policy = compiled(Net(), held_out=None)
    with pytest.raises(UsageError, match="held_out: nothing was held out") as refusal:
        policy.save(tmp_path / "x.budc.json")
    assert "unmeasured=True" in refusal.value.remedy
    quality = policy.save(tmp_path / "x.budc.json", unmeasured=True).document.quality
    assert (quality.held_out.size, quality.metrics, quality.baselines) == (0, [], [])


def test_steps_must_be_asked_for_their_velocity_once_and_in_order():
    net = Net()
    policy = compiled(net)
    steps = run(policy, net, budc.steps)
    first = next(steps)
    first.velocity(HELD_OUT[1])
    with pytest.raises(RefusedRun, match="step 0: the velocity of step 1 is next"):
        first.velocity(HELD_OUT[1])
    second = next(steps)
    with pytest.raises(RefusedRun, match=r"latents have shape \(1, 3\), the noise has \(4, 2, 3\)"):
        second.velocity(torch.zeros(1, 3))
    with pytest.raises(RefusedRun, match="step 1: its velocity was not asked for"):
        next(steps)


def shapes(compute=lambda velocity, cached: (velocity, cached), reuse=lambda velocity: velocity):
    """Functions whose results are changed."""
    own_compute, own_reuse = functions(Net())
    return lambda *given: compute(*own_compute(*given)), lambda *given: reuse(own_reuse(*given))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            shapes(reuse=lambda v: v[:, :1]),
            r"reuse returned a tensor of shape \(8, 1, 3\) for latents of shape \(8, 2, 3\)",
        ),
        (shapes(reuse=lambda v: (v,)), "reuse returned a tuple"),
        (shapes(compute=lambda v, c: (v[..., :1], c)), r"compute returned a tensor of shape \(8, 2, 1\)"),
        (
            shapes(compute=lambda v, c: v),
            r"compute returned a tensor of shape \(8, 2, 3\) for 8 samples, expected a velocity and",
        ),
        (shapes(compute=lambda v, c: (v, None)), "compute returned None for 8 samples"),
        (
            shapes(compute=lambda v, c: (v, c[:1])),
            r"compute returned a tensor of shape \(1, 2, 8\) for 8 samples",
        ),
    ],
)
def test_a_network_that_returns_another_shape_is_refused(pair, message):
    with pytest.raises(UnsupportedModel, match=message):
        compiled(pair)


def test_the_artifact_is_one_of_format_1_1_without_files(saved):
    saved(compiled(Net()))
    bundle = json.loads(saved.path.read_text())
    assert bundle["dsseEnvelope"]["signatures"]
    document = read(saved.path).document
    assert (document.schema_version, document.model.kind) == ("1.1", "network")
    assert re.fullmatch("sha256:[0-9a-f]{64}", document.model.denoisers[0].tensor_root)


def test_a_pair_that_is_a_denoiser_already_is_the_same():
    compute, reuse = functions(Net())
    made = CallableDenoiser(compute, reuse, WEIGHTS, torch.device("cpu"))
    policy = compiled(made)
    assert torch.equal(run(policy, made), run(compiled((compute, reuse)), (compute, reuse)))


def test_the_command_line_verifies_and_inspects_it(saved, tmp_path, capsys):
    from budc.cli import main

    (tmp_path / "net").mkdir()
    save_file(Net().state_dict(), tmp_path / "net" / "net.safetensors")
    for weights in (None, tmp_path / "net" / "net.safetensors"):
        saved(compiled(Net()), weights=weights)
        verify = ["verify", str(saved.path), "--trust", str(saved.trust), "--weights", str(tmp_path / "net")]
        assert main(verify) == 0, capsys.readouterr().err
        assert (
            "tensor root of net.safetensors" if weights is None else "variant original"
        ) in capsys.readouterr().out
        assert main(["inspect", str(saved.path)]) == 0
        page = capsys.readouterr().out
        for text in ("a network without a pipeline (Net, family net)", "2 x 3", "layers", "text 3, empty -2"):
            assert text in page
    save_file(Net(1).state_dict(), tmp_path / "net" / "net.safetensors")
    saved(compiled(Net()))
    assert main(verify) == WeightsMismatch.exit_code
    assert "have tensor root sha256:" in capsys.readouterr().err
    (tmp_path / "net" / "net.safetensors").unlink()
    assert main(verify) == WeightsMissing.exit_code
    assert main([*verify, "--replay"]) != 0


def test_a_search_reports_its_passes_and_prints_nothing(capfd):
    passes = []
    compiled(Net(), progress=lambda *given: passes.append(given))
    assert capfd.readouterr() == ("", "")
    assert {label for label, _, _ in passes} == {"calibration full", "search (uniform)"}
    assert passes[-1] == ("search (uniform)", 1, 1)
    with pytest.raises(UsageError, match="progress: True is no function of three values"):
        compiled(Net(), progress=True)
