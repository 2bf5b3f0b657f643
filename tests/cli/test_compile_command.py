import pytest

from budc.schema.artifact import open_artifact, read
from budc.schema.trust import Trust

torch = pytest.importorskip("torch")


def test_flags_override_the_source(compiled):
    artifact = open_artifact(compiled.path, Trust.from_pem(compiled.public))
    assert artifact.document.budget.requested == "3"
    assert artifact.document.sampler.steps == 6
    assert artifact.document.search.algorithm == "uniform"


def test_summary(compiled):
    artifact = open_artifact(compiled.path, Trust.from_pem(compiled.public))
    out = compiled.outcome.out
    for part in (str(compiled.path), artifact.policy_id, artifact.verified_by[0].fingerprint):
        assert part in out
    assert "█·█·█·" in out
    assert "3 held-out prompts" in out
    assert f"{artifact.document.search.forwards:,} transformer forwards" in out
    rows = [line.split()[0] for line in out.splitlines()[-5:]]
    assert rows == ["method", "this", "uniform", "fewer-steps", "full"]
    assert "UNSIGNED" not in out


def test_only_the_result_is_on_stdout(compiled):
    assert compiled.outcome.out.startswith("wrote ")
    assert "it/s" not in compiled.outcome.err


def test_unsigned_and_json(budc, compiled, shrunken, monkeypatch, tmp_path):
    shrunken(monkeypatch)
    flags = ["compile", "--model", "wan2.1-nano", "--budget", "6", "--steps", "6", "--search", "uniform"]
    flags += ["--weights", compiled.weights, "--calibration", compiled.prompts]
    record = budc(*flags, "--out", tmp_path / "a.budc.json", "--json").record
    assert record["policyId"] == read(tmp_path / "a.budc.json").policy_id
    assert record["budget"]["nfe"] == 6
    assert record["signedBy"] == []
    # A policy that computes every step is the full run.
    assert [m["mean"] for m in record["quality"]["metrics"] if m["name"] == "latent-mse"] == [0.0]
    outcome = budc("inspect", tmp_path / "a.budc.json")
    assert "UNSIGNED: nobody vouches" in outcome.out


def test_an_interrupted_compile_says_that_it_resumes(budc, compiled, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("budc.compiler.compile.compile_artifacts", interrupt)
    outcome = budc("compile", "--model", "wan2.1-nano", "--budget", "3")
    assert outcome.code == 130
    assert outcome.err.splitlines() == ["interrupted: the same command goes on where this one stopped"]
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--budget", "3"], 2),
        (["--model", "wan2.1-nnao", "--budget", "3"], 2),
        (["--model", "wan2.1-nano", "--budget", "0"], 51),
        (["--model", "wan2.1-nano", "--budget", "3", "--search", "nope"], 2),
        (["--model", "wan2.1-nano", "--budget", "3", "--weights", "/none"], 31),
        (["--model", "wan2.1-nano", "--budget", "3", "--key", "/none"], 26),
        (["--model", "wan2.1-nano", "--budget", "3", "--out", "/none/x.budc.json"], 61),
        (["/none.toml"], 2),
    ],
)
def test_refusals(budc, flags, code):
    outcome = budc("compile", *flags, "--json")
    assert outcome.code == code
    assert outcome.record["exitCode"] == code
    assert outcome.err.startswith("error: ")
