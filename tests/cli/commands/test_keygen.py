import stat

from budc.schema.keys import load_public, load_signer


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


def test_a_link_counts_as_existing(budc, tmp_path):
    (tmp_path / "old.key").symlink_to(tmp_path / "elsewhere")
    assert budc("keygen", "--out", tmp_path / "old").code == 61
    assert not (tmp_path / "elsewhere").exists()


def test_folder_that_is_missing(budc, tmp_path):
    outcome = budc("keygen", "--out", tmp_path / "none" / "release")
    assert outcome.code == 61
    assert "none/release.key" in outcome.err
