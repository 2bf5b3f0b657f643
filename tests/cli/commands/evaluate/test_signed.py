"""Evaluations that are signed: where they lie, who believes them, and what they are required for."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("torch")

from budc.schema.artifact import read
from budc.schema.attestation import read_evaluation
from budc.schema.keys import load_public

FLAGS = ("--metrics", "psnr", "--against", "none", "--repeats", "1", "--samples", "2")


class Attested(NamedTuple):
    """A policy that `release` signed, the evaluation of it that `lab` signed, and how that evaluation was made."""

    path: Path
    written: Path
    outcome: Any

    @property
    def evaluation(self):
        """The evaluation, opened."""
        return read_evaluation(self.written)

    @property
    def psnr(self):
        """The policy's PSNR in its calibrated setting."""
        return self.evaluation.document.settings[0].methods[0].metric("psnr")


@pytest.fixture
def attested(budc, evaluate, compiled, flux_profile, tmp_path):
    """A third party attests to a policy that is not theirs."""
    path = tmp_path / "policy.budc.json"
    path.write_bytes(compiled(flux_profile).read_bytes())
    for name in ("release", "lab"):
        assert budc("keygen", "--out", tmp_path / name).code == 0
    assert budc("sign", path, "--key", tmp_path / "release.key").code == 0
    trusted = ("--trust", tmp_path / "release.pub", "--key", tmp_path / "lab.key")
    outcome = evaluate(path, *FLAGS, *trusted, "--summary")
    assert outcome.code == 0, outcome.err
    return Attested(path, tmp_path / "policy.evaluation.json", outcome)


@pytest.fixture
def believed(budc, attested, tmp_path, monkeypatch):
    """The same, where the user trusts `release`, and `lab` as an evaluator."""
    monkeypatch.setenv("BUDC_TRUST", str(tmp_path / "trust.toml"))
    assert budc("trust", "add", tmp_path / "release.pub").code == 0
    assert budc("trust", "require", "--evaluation", "n>=2").code == 2
    assert budc("trust", "add", tmp_path / "lab.pub", "--role", "evaluator").code == 0
    return attested


def test_a_signed_evaluation_lies_beside_the_policy(attested, tmp_path):
    evaluation, outcome, policy = attested.evaluation, attested.outcome, read(attested.path)
    assert evaluation.document.policy == policy.policy_id
    assert evaluation.digest in outcome.out
    # Passes name the policy, not its digest.
    assert f"\ncalibrated {policy.document.name} " in outcome.err
    assert "sha256:" not in outcome.err
    assert outcome.err.splitlines().count("calibrated full") == 1
    assert all(method.samples == {} for method in evaluation.document.settings[0].methods)
    assert list((tmp_path / "evaluation").glob("*.json")) == []


def test_it_is_not_believed_before_its_evaluator_is_trusted(budc, attested, tmp_path):
    trusted = ("--trust", tmp_path / "release.pub")
    outcome = budc("verify", attested.path, *trusted)
    assert outcome.code == 0
    assert "policy.evaluation.json is not believed: it is signed by sha256:" in outcome.out
    refused = budc("verify", attested.path, *trusted, "--require-evaluation", "n>=2")
    assert (refused.code, "budc trust add PUB --role evaluator" in refused.err) == (2, True)


def test_verify_and_run_require_one_within_bounds(budc, believed, flux_folder, tmp_path):
    path, measured = believed.path, believed.psnr
    outcome = budc("verify", path)
    assert "policy.evaluation.json by lab: latent-mse " in outcome.out
    assert f"PSNR {measured.mean:.4g} (worst {measured.worst:.4g}); 2 prompts on cpu" in outcome.out
    (record,) = budc("verify", path, "--json").record["evaluations"]
    assert (record["believed"], record["metrics"]["psnr"]["mean"]) == (True, measured.mean)

    good, better = f"psnr>={measured.mean - 1},n>=2", f"psnr>={measured.mean + 1}"
    outcome = budc("verify", path, "--require-evaluation", good)
    assert (outcome.code, "ok  required" in outcome.out) == (0, True)
    refused = budc("verify", path, "--require-evaluation", better)
    assert refused.code == 43
    assert f"policy.evaluation.json: PSNR is {measured.mean:.6g}, and PSNR >= " in refused.err
    run = ("run", path, "--prompt", "x", "--out", tmp_path / "x.png", "--weights", flux_folder)
    assert budc(*run, "--require-evaluation", better).code == 43
    # What the loop took there is said of a run as of the file.
    outcome, verified = budc(*run), budc("verify", path)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] == verified.out.splitlines()[0]
    assert "; the loop took " in outcome.out
    assert budc("trust", "require", "--evaluation", better).code == 0
    assert budc(*run).code == budc("verify", path).code == 43


def test_a_trust_file_requires_and_denies_evaluations(budc, evaluate, believed):
    path, mean = believed.path, believed.psnr.mean
    assert budc("trust", "require", "--evaluation", f"psnr>={mean + 1}").code == 0
    # Whoever evaluates a policy need not have an evaluation of it.
    assert evaluate(path, *FLAGS).code == 0
    assert budc("trust", "remove", "lab").code == 2
    assert budc("trust", "require", "--evaluation", f"psnr>={mean - 1},n>=2").code == 0
    assert budc("verify", path).code == 0
    assert json.dumps(budc("trust", "list", "--json").record["requiredEvaluation"]).startswith('["psnr>=')
    assert budc("trust", "deny", believed.written).code == 0
    assert "the trust file denies sha256:" in budc("verify", path).err
    assert budc("trust", "require", "--no-evaluation").code == 0
    assert budc("trust", "remove", "lab").code == budc("verify", path).code == 0


def test_an_evaluation_is_signed_and_shown_later(budc, evaluate, compiled, flux_profile, tmp_path):
    path = compiled(flux_profile)
    assert evaluate(path, "--no-frames", "--against", "none", "--repeats", "0", "--samples", "2").code == 0
    (written,) = (tmp_path / "evaluation").glob("*.evaluation.json")
    page = budc("inspect", written)
    assert page.code == 0
    assert "nobody; `budc sign FILE --key KEY` signs it" in page.out
    assert "not verified here" in page.out
    plain = budc("inspect", written, "--json").record
    assert budc("keygen", "--out", tmp_path / "lab").code == 0
    assert budc("sign", written, "--key", tmp_path / "lab.key").code == 0
    record = budc("inspect", written, "--json").record
    assert (record["verified"], record["signed"], plain["signed"]) == (False, True, False)
    assert (record["document"], record["evaluation"]) == (plain["document"], plain["evaluation"])
    outcome = budc("verify", written, "--trust", tmp_path / "lab.pub")
    assert (outcome.code, "budc inspect" in outcome.err) == (24, True)


def test_where_a_signed_evaluation_will_lie_is_checked_first(
    budc, evaluate, compiled, flux_profile, tmp_path
):
    path = tmp_path / "policy.budc.json"
    path.write_bytes(compiled(flux_profile).read_bytes())
    assert budc("keygen", "--out", tmp_path / "lab").code == 0
    identity = load_public(tmp_path / "lab.pub").fingerprint.removeprefix("sha256:")[:8]
    for name in ("policy.evaluation.json", f"policy.{identity}.evaluation.json"):
        (tmp_path / name).mkdir()
    outcome = evaluate(path, "--key", tmp_path / "lab.key")
    assert outcome.code == 61
    assert "a signed evaluation is written beside the policy" in outcome.err
    assert list((tmp_path / "evaluation").iterdir()) == []
    outcome = evaluate(path, "--public", tmp_path / "lab.pub")
    assert (outcome.code, "--public: it is the public half of --key" in outcome.err) == (2, True)
