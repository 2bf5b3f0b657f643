"""`budc export config`: what is written, what is said of it, and what is refused."""

import json

import pytest

pytest.importorskip("torch")


@pytest.fixture
def export(budc, compiled, tmp_path):
    """Export the compiled policy, which is signed and reuses the trunk residual unchanged."""

    def call(target, *arguments, out="config.json"):
        trust = ("--trust", compiled.public)
        return budc(
            "export", "config", compiled.path, "--to", target, "--out", tmp_path / out, *trust, *arguments
        )

    return call


def test_a_policy_that_the_engine_can_run_loses_nothing(export, tmp_path):
    outcome = export("diffusers-magcache")
    assert outcome.code == 0, outcome.err
    lines = [line.split(maxsplit=1) for line in outcome.out.splitlines()]
    assert ["lost", "nothing: the engine runs the policy as it says, to rounding"] in lines
    assert ["unchecked", "the signature, and whose policy it is"] in lines
    config = json.loads((tmp_path / "config.json").read_text())
    assert [ratio > 1 for ratio in config["mag_ratios"]] == [True, False, True, False, True, False]


def test_the_record_says_the_same(export, tmp_path):
    record = export("cache-dit", "--json", out="config.yaml").record
    assert record["path"] == str(tmp_path / "config.yaml")
    assert record["masks"] == {name: [True, False, True, False, True, False] for name in ("cond", "uncond")}
    assert [loss.partition(":")[0] for loss in record["losses"]] == ["blocks"]
    assert record["errors"] is None


def test_the_loss_is_measured(export, compiled):
    outcome = export("lightx2v", "--weights", compiled.weights, "--samples", "2", "--json")
    assert outcome.code == 0, outcome.err
    errors = outcome.record["errors"]
    assert errors["samples"] == 2
    assert errors["between"] == 0.0
    assert errors["policy"] == errors["deployed"] > 0


def test_a_signed_policy_is_bound_to_the_file(export, budc, compiled, tmp_path):
    key = compiled.public.with_suffix(".key")
    outcome = export("diffusers-magcache", "--key", key)
    assert outcome.code == 0, outcome.err
    bound, config = tmp_path / "config.json.budc.json", tmp_path / "config.json"
    shown = budc("inspect", bound, "--json").record["document"]
    original = budc("inspect", compiled.path, "--json").record
    assert shown["derivedFrom"] == original["policyId"]
    assert shown["target"]["name"] == "diffusers-magcache"
    verified = budc("verify", bound, "--trust", compiled.public, "--config", config)
    assert verified.code == 0, verified.err
    assert "ok  config" in verified.out
    config.write_text(config.read_text().replace("0.5", "0.6"))
    refused = budc("verify", bound, "--trust", compiled.public, "--config", config)
    assert (refused.code, "is not the configuration" in refused.err) == (22, True)
    unbound = budc("verify", compiled.path, "--trust", compiled.public, "--config", config)
    assert (unbound.code, "bound to no configuration" in unbound.err) == (2, True)


def test_what_is_lossy_is_not_signed(export, compiled, tmp_path):
    outcome = export("cache-dit", "--key", compiled.public.with_suffix(".key"), out="config.yaml")
    assert outcome.code == 2
    assert "cache-dit runs another policy than" in outcome.err
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    ("target", "arguments", "code", "message"),
    [
        ("magcache", (), 2, "no target named 'magcache'"),
        ("diffusers-magcache", ("--set", "x=1"), 2, "has no setting 'x'"),
        ("sglang-dpcache", ("--set", "checkpoint"), 2, "is not NAME=VALUE"),
        ("sglang-dpcache", (), 34, "is for float32, sglang-dpcache runs bfloat16"),
        ("sd.cpp", (), 34, "takes steps like it with FlowMatchEulerDiscreteScheduler alone"),
        ("cache-dit", (), 2, "ends in .json"),
    ],
)
def test_refusals(export, tmp_path, target, arguments, code, message):
    outcome = export(target, *arguments)
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err
    assert not (tmp_path / "config.json").exists()


def test_nobody_s_policy_is_not_exported(budc, compiled, tmp_path):
    outcome = budc("export", "config", compiled.path, "--to", "lightx2v", "--out", tmp_path / "x.json")
    assert outcome.code == 23
    assert not (tmp_path / "x.json").exists()


def test_a_policy_for_an_engine_is_measured_by_its_rule(budc, compiled, shrunken, tmp_path, monkeypatch):
    shrunken(monkeypatch)
    path = tmp_path / "made.budc.json"
    outcome = budc(
        *("compile", "--model", "wan2.1-nano", "--weights", compiled.weights, "--out", path, "--no-frames"),
        *("--steps", 6, "--budget", 3, "--search", "uniform", "--for", "cache-dit"),
        *("--key", compiled.public.with_suffix(".key")),
    )
    assert outcome.code == 0, outcome.err
    own, made = (budc("inspect", artifact, "--json").record["document"] for artifact in (compiled.path, path))
    assert (made["target"]["name"], made["schemaVersion"]) == ("cache-dit", "1.1")
    # The same mask; what differs is the first block, which runs at every step.
    assert made["policy"] == own["policy"]
    errors = [document["quality"]["metrics"][0]["mean"] for document in (own, made)]
    assert errors[0] != pytest.approx(errors[1], rel=1e-3)
    trust = ("--trust", compiled.public)
    replayed = budc("verify", path, *trust, "--weights", compiled.weights, "--replay", "--samples", 2)
    assert replayed.code == 0, replayed.err
    refused = budc("run", path, *trust, "--weights", compiled.weights, "--prompt", "x")
    assert (refused.code, "another engine as its target (target, cache-dit)" in refused.err) == (15, True)
    assert "budc export config" in refused.err
