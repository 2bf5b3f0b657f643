import pytest

from budc.schema.artifact import read
from budc.schema.keys import load_public


def test_add_list_and_remove(budc, public, configuration):
    assert budc("trust", "list", "--json").record["keys"] == []
    assert budc("trust", "add", public, "--name", "lab", "--family", "wan", "--family", "flux").code == 0
    listed = budc("trust", "list")
    fingerprint = load_public(public).fingerprint
    assert str(configuration / "trust.toml") in listed.out
    assert [line.split()[0] for line in listed.out.splitlines() if fingerprint in line] == ["lab"]
    (key,) = budc("trust", "list", "--json").record["keys"]
    assert (key["name"], key["families"], key["fingerprint"]) == ("lab", ["wan", "flux"], fingerprint)
    assert budc("trust", "add", public).code == 2
    (configuration / "trust.toml").write_text(
        (configuration / "trust.toml").read_text().replace('["wan", "flux"]', "[]")
    )
    assert budc("trust", "list", "--json").record["keys"][0]["families"] == []
    assert "none" in budc("trust", "list").out
    assert budc("trust", "remove", "lab").code == 0
    assert budc("trust", "list", "--json").record["keys"] == []
    assert budc("trust", "remove", "lab").code == 2


def test_a_family_that_no_shipped_model_has_is_spoken_of(budc, public):
    """It may be one of the user's own, and it may be a slip that makes every policy be refused."""
    outcome = budc("trust", "add", public, "--name", "a", "--family", "wan2.1-nanno")
    assert outcome.code == 0
    assert "did you mean wan2.1-nano?" in outcome.err
    budc("trust", "remove", "a")
    outcome = budc("trust", "add", public, "--family", "wan2.1-nano")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_key_for_other_families_does_not_count(budc, sealed, public):
    path = sealed()
    assert budc("trust", "add", public, "--family", "flux").code == 0
    outcome = budc("verify", path)
    assert outcome.code == 23
    assert "release is not trusted for models of the family wan" in outcome.err


def test_deny_by_file_or_id(budc, sealed, public):
    path = sealed()
    budc("trust", "add", public)
    assert budc("trust", "deny", path).code == 0
    assert budc("verify", path).code == 28
    assert read(path).policy_id in budc("trust", "list").out
    assert budc("trust", "deny", read(path).policy_id, "--undo").code == 0
    assert budc("verify", path).code == 0
    assert budc("trust", "deny", "sha256:x").code == 2


def test_an_id_is_an_id_whatever_files_there_are(budc, sealed, public, tmp_path, monkeypatch):
    """A file that is called like the policy to be denied would be denied in its place."""
    budc("trust", "add", public)
    identity = read(sealed()).policy_id
    decoy = sealed(revision=2).rename(tmp_path / identity)
    monkeypatch.chdir(tmp_path)
    assert budc("trust", "deny", identity).code == 0
    assert budc("verify", sealed()).code == 28
    assert budc("verify", decoy).code == 0


def test_minimum_revision(budc, sealed, public):
    path = sealed(revision=2)
    budc("trust", "add", public)
    assert budc("trust", "require", "--minimum-revision", "wan-nano-nfe3=3").code == 0
    assert budc("verify", path).code == 27
    assert "wan-nano-nfe3 revision 3" in budc("trust", "list").out
    assert budc("trust", "require", "--no-minimum-revision", "wan-nano-nfe3").code == 0
    assert budc("verify", path).code == 0
    assert budc("trust", "require", "--no-minimum-revision", "wan-nano-nfe3").code == 2
    for text in ("x", "x=0", "=1", "x=1.5", "a b=1"):
        assert budc("trust", "require", "--minimum-revision", text).code == 2


def test_another_trust_file_by_environment(budc, sealed, public, configuration, tmp_path, monkeypatch):
    monkeypatch.setenv("BUDC_TRUST", str(tmp_path / "mine.toml"))
    assert budc("verify", sealed()).code == 20
    assert budc("trust", "add", public).code == 0
    assert budc("verify", sealed()).code == 0
    assert not (configuration / "trust.toml").exists()


@pytest.mark.parametrize("content", [b"not a key", b""])
def test_what_is_no_key_is_not_added(budc, tmp_path, configuration, content):
    (tmp_path / "x.pub").write_bytes(content)
    assert budc("trust", "add", tmp_path / "x.pub").code == 26
    assert not (configuration / "trust.toml").exists()
