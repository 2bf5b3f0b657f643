import pytest

from budc.schema.artifact import open_artifact, read
from budc.schema.keys import load_public
from budc.schema.trust import Trust

pytest.importorskip("torch")


@pytest.fixture
def source(budc, flux_profile, flux_folder, tmp_path):
    """An unsigned policy."""
    path = tmp_path / "source.budc.json"
    flags = ("--budget", "3", "--search", "uniform", "--weights", flux_folder, "--out", path)
    outcome = budc("compile", "--model", flux_profile, *flags)
    assert outcome.code == 0, outcome.err
    return path


def test_a_transfer_takes_what_a_compile_takes(
    budc, source, flux_profile, flux_folder, key_pair, public, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "release.key").write_bytes(key_pair.private)
    (tmp_path / "prompts.txt").write_text("a red circle moves left\na blue cross rises\n")
    outcome = budc(
        *("transfer", source, "--to", flux_profile, "--weights", flux_folder, "--allow-unsigned"),
        *("--calibration", "prompts.txt", "--key", "release.key", "--public", public),
        *("--revision", "4", "--rehash", "--json"),
    )
    assert outcome.code == 0, outcome.err
    record = outcome.record
    assert record["path"] == f"{flux_profile}-nfe3.budc.json"
    assert record["derivedFrom"] == read(source).policy_id
    assert record["revision"] == 4
    assert record["quality"]["calibration"]["size"] == 2
    artifact = open_artifact(tmp_path / record["path"], Trust.from_pem(public))
    assert [key.fingerprint for key in artifact.verified_by] == [load_public(public).fingerprint]


def test_a_policy_that_nobody_signed_needs_the_flag(budc, source, flux_profile, flux_folder, tmp_path):
    transfer = ("transfer", source, "--to", flux_profile, "--weights", flux_folder, "--frozen")
    assert budc(*transfer, "--out", tmp_path / "x.budc.json").code == 21
    outcome = budc(*transfer, "--out", tmp_path / "x.budc.json", "--allow-unsigned")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert " evaluations: " in lines[0]
    assert f"derived from  {read(source).policy_id}" in outcome.out
    assert ["wrote", str(tmp_path / "x.budc.json")] in [line.split() for line in lines]
