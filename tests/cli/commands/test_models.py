from budc.policies.profile import load_profile, profile_names


def test_every_profile_has_a_row(budc):
    out = budc("models").out
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(profile_names())
    (row,) = [line for line in out.splitlines() if line.startswith("wan2.1 ")]
    for part in ("Apache-2.0", "29 GB", "50", "832x480x81", "not found (Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"):
        assert part in row


def test_weights_in_the_hub_cache_are_found(budc, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    profile = load_profile("wan2.1")
    snapshot = tmp_path / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / profile.revision).write_text("abc")
    records = {record["name"]: record for record in budc("models", "--json").record}
    assert records["wan2.1"]["weights"] == str(snapshot)
    assert records["wan2.1"]["weightsFound"] is True
    assert records["wan2.1-14b"]["weights"] is None
    assert records["wan2.1-14b"]["steps"] == 50
