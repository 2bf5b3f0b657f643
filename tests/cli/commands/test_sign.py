import json

import pytest

from budc.schema.artifact import read
from budc.schema.keys import load_public


@pytest.fixture
def pair(budc, tmp_path):
    """Prefix of a key pair that `budc keygen` made."""
    assert budc("keygen", "--out", tmp_path / "second").code == 0
    return tmp_path / "second"


def test_an_unsigned_artifact_is_signed_in_place(budc, sealed, pair):
    path = sealed(signed=False)
    before = read(path)
    outcome = budc("sign", path, "--key", f"{pair}.key")
    assert outcome.code == 0, outcome.err
    assert before.policy_id in outcome.out
    assert read(path).payload == before.payload
    assert budc("verify", path, "--trust", f"{pair}.pub").code == 0


def test_a_second_signature_and_a_threshold(budc, sealed, public, pair, tmp_path):
    path, both = sealed(), tmp_path / "both.budc.json"
    assert budc("sign", path, "--key", f"{pair}.key", "--out", both).code == 0
    assert len(read(path).signatures) == 1
    for key in (public, f"{pair}.pub"):
        assert budc("trust", "add", key).code == 0
    assert budc("trust", "require", "--threshold", "2").code == 0
    assert budc("verify", path).code == 23
    outcome = budc("verify", both)
    assert outcome.code == 0
    assert "by release, sha256:" in outcome.out
    assert "by second, sha256:" in outcome.out
    assert budc("sign", both, "--key", f"{pair}.key").code == 2


def test_replace_drops_the_others(budc, sealed, public, pair):
    path = sealed()
    assert budc("sign", path, "--key", f"{pair}.key", "--replace").code == 0
    assert budc("verify", path, "--trust", public).code == 23
    assert budc("verify", path, "--trust", f"{pair}.pub").code == 0


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(budc, sealed, tmp_path, monkeypatch):
    monkeypatch.setenv("BUDC_SECRET", "open sesame")
    assert budc("keygen", "--out", tmp_path / "locked", "--encrypt").code == 0
    assert b"ENCRYPTED" in (tmp_path / "locked.key").read_bytes()
    path = sealed(signed=False)
    assert budc("sign", path, "--key", tmp_path / "locked.key").code == 0
    monkeypatch.setenv("BUDC_SECRET", "wrong")
    assert budc("sign", sealed(signed=False), "--key", tmp_path / "locked.key").code == 26


def test_keys_by_environment_and_by_uri(budc, sealed, pair, monkeypatch):
    monkeypatch.setenv("SIGNING_KEY", (pair.parent / "second.key").read_text())
    assert budc("sign", sealed(signed=False), "--key", "env:SIGNING_KEY").code == 0
    uri = f"file2:{pair}.key"
    assert budc("sign", sealed(signed=False), "--key", uri).code == 26
    outcome = budc("sign", sealed(signed=False), "--key", uri, "--public", f"{pair}.pub")
    assert outcome.code == 0, outcome.err
    assert load_public(f"{pair}.pub").fingerprint in outcome.out


def test_what_is_not_a_policy_is_not_signed(budc, sealed, pair, tmp_path):
    bundle = json.loads(sealed().read_text())
    bundle["dsseEnvelope"]["payload"] = "e30="
    path = tmp_path / "x.budc.json"
    path.write_text(json.dumps(bundle))
    assert budc("sign", path, "--key", f"{pair}.key").code == 24
    assert json.loads(path.read_text()) == bundle
    assert budc("sign", sealed()).code == 2
