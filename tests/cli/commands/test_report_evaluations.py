"""`budc report` of evaluations: verified where they can be, marked where nobody vouches, refused where they are false."""

import msgspec
import pytest

from budc.schema.artifact import read
from budc.schema.attestation import read_evaluation, seal_evaluation
from budc.schema.evaluation import plain_file
from budc.schema.keys import PublicKey

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

SPEED = "the loop took 4 times less on cpu"


@pytest.fixture
def page(budc, measured, tmp_path, monkeypatch, evaluators):
    """Write the page of the policy's folder, where the user's trust file has the evaluator and these lines."""
    policy, out = measured[0], tmp_path / "report.html"

    def call(*arguments, trust=()):
        monkeypatch.setenv("BUDC_TRUST", str(evaluators(*trust)))
        outcome = budc("report", policy.parent, *arguments, "--out", out)
        assert outcome.code == 0, outcome.err
        return " ".join(out.read_text(encoding="utf-8").split())

    return call


def test_one_by_a_trusted_evaluator_is_verified(page, public, signer, measured):
    _, evaluation, file = measured
    file.write_bytes(seal_evaluation(evaluation, signer))
    text = page()
    assert f"; {SPEED}." in text
    assert f"on 4 prompts; signed by {PublicKey.from_pem(public.read_bytes()).fingerprint}" in text
    assert f"{file.name} (" not in text


@pytest.mark.parametrize("signed", [False, True])
def test_one_that_nobody_vouches_for_is_marked(page, public, signer, measured, signed):
    _, evaluation, file = measured
    file.write_bytes(seal_evaluation(evaluation, signer) if signed else plain_file(evaluation))
    # Of publishers alone, whom an evaluation does not concern.
    text = page("--trust", public)
    assert f"; {SPEED}, says {file.name}, which is not verified." in text
    why = "no trusted evaluator signed it, the file names sha256:" if signed else "nobody signed it). Anyone"
    assert f"Not verified: {file.name} ({why}" in text
    assert "on 4 prompts; not verified" in text


def test_a_verified_one_comes_first_and_is_not_drawn_with_others(page, signer, measured):
    _, evaluation, file = measured
    file.write_bytes(seal_evaluation(evaluation, signer))
    # By its name it would be the first.
    other = file.with_name(file.name.replace(".evaluation", ".a.evaluation"))
    other.write_bytes(plain_file(evaluation))
    text = page()
    assert f"; {SPEED}." in text
    assert f"Not verified: {other.name} (nobody signed it). Anyone" in text
    assert text.count("on 4 prompts; signed by sha256:") == text.count("on 4 prompts; not verified") > 0


def swapped(signed, other):
    """Return a signed file with the payload of another under its signature."""
    bundle, content = map(msgspec.json.decode, (signed, other))
    bundle["dsseEnvelope"]["payload"] = content["dsseEnvelope"]["payload"]
    return msgspec.json.encode(bundle)


@pytest.mark.parametrize(
    ("what", "code"), [("changed after signing", 22), ("denied", 28), ("denied and unsigned", 28)]
)
def test_one_that_is_false_is_refused(budc, signer, measured, evaluators, tmp_path, monkeypatch, what, code):
    policy, evaluation, file = measured
    signed, plain = seal_evaluation(evaluation, signer), plain_file(evaluation)
    other = seal_evaluation(msgspec.structs.replace(evaluation, device="cuda"), signer)
    contents = {
        "changed after signing": swapped(signed, other),
        "denied": signed,
        "denied and unsigned": plain,
    }
    file.write_bytes(contents[what])
    denied = [f'denied = ["{read_evaluation(plain).digest}"]'] if code == 28 else []
    monkeypatch.setenv("BUDC_TRUST", str(evaluators(*denied)))
    out = tmp_path / "report.html"
    for evaluations in ((policy, "--evaluation", file), (policy.parent,)):
        outcome = budc("report", *evaluations, "--out", out)
        assert (outcome.code, out.exists()) == (code, False), outcome.err
        assert str(file) in outcome.err


def test_what_is_too_large_to_be_signed_is_shown(page, measured):
    _, evaluation, file = measured
    file.write_bytes(plain_file(evaluation) + b" " * (1 << 20))
    assert f"says {file.name}, which is not verified." in page()


def test_a_policy_without_the_evaluation_that_is_required_is_marked(
    budc, public, measured, tmp_path, monkeypatch
):
    policy, out, trust = measured[0], tmp_path / "report.html", tmp_path / "both.toml"
    key = f'[[keys]]\nfile = "{public.name}"\nroles = ["publisher", "evaluator"]\n'
    trust.write_text(f'require-evaluation = "psnr>=30"\n{key}')
    assert budc("report", policy, "--trust", trust, "--out", out).code == 43
    monkeypatch.setenv("BUDC_TRUST", str(trust))
    assert budc("report", policy, "--out", out).code == 0
    assert f"not verified: {read(policy).document.name} has no evaluation with" in out.read_text(
        encoding="utf-8"
    )
