from budc.policies.profile import load_profile, profile_names


def test_every_profile_has_a_row(budc):
    out = budc("models").out
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(profile_names())
    (row,) = [line for line in out.splitlines() if line.startswith("wan2.1 ")]
    for part in ("Apache-2.0", "29 GB", "50", "480x832x81", "not found (Wan-AI/Wan2.1-T2V-1.3B-Diffusers)"):
        assert part in row


def test_the_policies_of_the_package_are_listed(budc):
    rows = {line.split()[0]: line for line in budc("models").out.splitlines()}
    assert " 6 8 10 14 " in rows["flux-nano"]
    assert " 6 8 10 14 " in rows["wan2.1-nano"]
    assert " – " in rows["wan2.1"]
    policies = {record["name"]: record["policies"] for record in budc("models", "--json").record}
    assert policies["wan2.1"] == []
    assert [policy["nfe"] for policy in policies["wan2.1-nano"]] == [6, 8, 10, 14]


def test_one_model_with_the_paths_of_its_policies(budc):
    record = budc("models", "flux-nano", "--json").record
    page = budc("models", "flux-nano").out
    assert [policy["path"] in page for policy in record["policies"]] == [True] * 4
    assert budc("inspect", record["policies"][0]["path"]).code == 0
    key = page.split()[-1]
    assert "the package's demonstration key" in page
    outcome = budc("verify", record["policies"][0]["path"], "--trust", key)
    assert outcome.code == 0, outcome.err


def test_a_model_without_policies_and_one_that_is_unknown(budc):
    page = budc("models", "wan2.1").out
    assert "policies  –" in page
    assert "signed by" not in page
    outcome = budc("models", "nope")
    assert outcome.code == 2
    assert "no profile named 'nope'" in outcome.err


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
