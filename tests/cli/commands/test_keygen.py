import stat

import pytest

from budc.schema.errors import KeyUnusable
from budc.schema.keys import load_public
from budc.schema.signers import load_signer


def test_makes_a_pair_that_belongs_together(budc, tmp_path):
    outcome = budc("keygen", "--out", tmp_path / "release")
    assert outcome.code == 0
    public = load_public(tmp_path / "release.pub")
    load_signer(tmp_path / "release.key", public=public)
    assert public.fingerprint in outcome.out
    assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600


def test_never_overwrites(budc, tmp_path):
    for suffix in (".key", ".pub"):
        taken = tmp_path / f"old{suffix}"
        taken.write_text("precious")
        outcome = budc("keygen", "--out", tmp_path / "old")
        assert outcome.code == 61
        assert str(taken) in outcome.err
        assert taken.read_text() == "precious"
        taken.unlink()
        assert list(tmp_path.glob("old.*")) == []


@pytest.mark.parametrize("secret", ["", "x" * 1024])
def test_a_passphrase_that_cannot_protect_makes_no_key(budc, tmp_path, monkeypatch, secret):
    """An empty one would leave the key readable, one of 1,024 bytes could not be read again."""
    monkeypatch.setenv("BUDC_SECRET", secret)
    outcome = budc("keygen", "--out", tmp_path / "release", "--encrypt")
    assert outcome.code == 26
    assert f"{len(secret)} bytes" in outcome.err
    assert list(tmp_path.glob("release*")) == []


@pytest.mark.parametrize("secret", ["x", "x" * 1023, "pässword", "\udcff"])
def test_any_other_passphrase_opens_the_key_again(budc, tmp_path, monkeypatch, secret):
    monkeypatch.setenv("BUDC_SECRET", secret)
    assert budc("keygen", "--out", tmp_path / "release", "--encrypt").code == 0
    assert b"ENCRYPTED" in (tmp_path / "release.key").read_bytes()
    load_signer(tmp_path / "release.key")
    with pytest.raises(KeyUnusable):
        load_signer(tmp_path / "release.key", secret=lambda _: "another")


@pytest.mark.parametrize("out", ["", ".", "x" * 300])
def test_names_that_no_key_can_have(budc, out):
    assert budc("keygen", "--out", out).code == 61


def test_a_link_counts_as_existing(budc, tmp_path):
    (tmp_path / "old.key").symlink_to(tmp_path / "elsewhere")
    assert budc("keygen", "--out", tmp_path / "old").code == 61
    assert not (tmp_path / "elsewhere").exists()


def test_folder_that_is_missing(budc, tmp_path):
    outcome = budc("keygen", "--out", tmp_path / "none" / "release")
    assert outcome.code == 61
    assert "none/release.key" in outcome.err
