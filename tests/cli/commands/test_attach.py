"""Policies beside the weights: attaching, finding, replaying, and preparing a repository of them."""

import json
import shutil
from dataclasses import replace

import msgspec
import pytest

import budc as api
from budc.schema.artifact import open_artifact, read, seal
from budc.schema.attestation import seal_evaluation
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import file_digests
from budc.schema.discover import attach, load_policy, policies, user_folder
from budc.schema.errors import ArtifactError, NotEvaluated, UnsafeWeights, UntrustedKey, UsageError
from budc.schema.signers import load_signer
from budc.schema.trust import Trust

FILES = ("scheduler/scheduler_config.json", "transformer/config.json", "transformer/model.safetensors")


@pytest.fixture
def model(model_folder):
    return model_folder


@pytest.fixture
def bound_policy(tmp_path, model, make_document, signer):
    """Write a signed artifact bound to `model`: `bound_policy(steps=6, nfe=3, name=...)`."""

    def write(**fields):
        binding = make_document().model
        variant = msgspec.structs.replace(binding.variants[0], files=file_digests(model, FILES))
        document = make_document(**{"model": msgspec.structs.replace(binding, variants=[variant]), **fields})
        path = tmp_path / f"{document.name}-{document.revision}.json"
        path.write_bytes(seal(document, signer))
        return path

    return write


def test_attached_policies_are_found_by_folder(budc, bound_policy, model, public, trust):
    for nfe in (2, 3):
        policy = bound_policy(name=f"wan-nfe{nfe}", nfe=nfe)
        outcome = budc("attach", policy, model)
        assert outcome.code == 0, outcome.err
        assert (model / "budc" / f"wan-nfe{nfe}.budc.json").is_file()
        assert "nothing changed" not in outcome.out
        assert outcome.err == ""
    again = budc("attach", policy, model)
    assert again.out.endswith("wan-nfe3.budc.json, as it was: nothing changed\n")
    outcome = budc("verify", model, "--trust", public)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("variant original: all 3 files") == 2
    assert len(budc("verify", model, "--trust", public, "--json").record) == 2
    assert load_policy(model, 3, trust=trust).document.name == "wan-nfe3"
    assert api.load_policy(model, name="wan-nfe2", trust=trust).document.budget.nfe == 2
    for wrong in ({"nfe": 4}, {"name": "x"}, {}):
        with pytest.raises(UsageError, match="wan-nfe2"):
            load_policy(model, **wrong, trust=trust)


def test_evaluations_of_the_policy_are_attached_and_pushed_with_it(
    budc, bound_policy, model, trust, signer, make_evaluation, tmp_path
):
    path = bound_policy(name="nano")
    document = read(path).document
    for name, policy in {
        "nano-1": document,
        "nano-1.old": msgspec.structs.replace(document, revision=9),
    }.items():
        (tmp_path / f"{name}.evaluation.json").write_bytes(seal_evaluation(make_evaluation(policy), signer))
    requiring = replace(trust, evaluators=trust.keys).requiring("psnr>=30,n>=4")
    assert budc("attach", path, model).code == 0
    assert load_policy(model, trust=requiring).document == document
    outcome = budc("push", path, "--out", tmp_path / "hub", "--base-model", "org/model")
    assert outcome.code == 0, outcome.err
    assert open_artifact(tmp_path / "hub" / "nano.budc.json", requiring).document == document
    for folder in (model / "budc", tmp_path / "hub"):
        assert [file.name for file in folder.glob("*.evaluation.json")] == ["nano.evaluation.json"]
    (model / "budc" / "nano.evaluation.json").unlink()
    with pytest.raises(NotEvaluated):
        load_policy(model, trust=requiring)


def test_found_is_not_trusted(budc, bound_policy, model, trust):
    budc("attach", bound_policy(), model)
    with pytest.raises(UntrustedKey):
        load_policy(model, trust=Trust(()))
    assert budc("verify", model).code == 23
    # One that is not believed does not stand in the way of one that is.
    (model / "budc" / "a.budc.json").write_text("{}")
    assert load_policy(model, trust=trust).verified_by == trust.keys
    assert budc("verify", model).code != 0


def test_nothing_attached(budc, model, trust, public):
    with pytest.raises(ArtifactError, match="no policy is attached"):
        load_policy(model, trust=trust)
    assert budc("verify", model, "--trust", public).code == 10
    assert budc("run", model, "--trust", public, "--prompt", "x", "--out", model / "x.png").code == 10


def test_another_model_is_refused(budc, bound_policy, model):
    path = bound_policy()
    (model / FILES[1]).write_text("other")
    assert budc("attach", path, model).code == 32
    assert not (model / "budc").exists()


def test_a_newer_revision_is_not_replaced_by_an_older_one(budc, bound_policy, model, trust):
    assert budc("attach", bound_policy(revision=2), model).code == 0
    assert budc("attach", bound_policy(revision=3), model).code == 0
    outcome = budc("attach", bound_policy(revision=1), model)
    assert outcome.code == 2
    assert "revision 3" in outcome.err
    assert load_policy(model, trust=trust).document.revision == 3


def test_what_is_attached_is_what_was_checked(budc, bound_policy, model, tmp_path, monkeypatch):
    """Another writer replaces the artifact while the model's files are hashed."""
    path, other = bound_policy(), bound_policy(revision=2)
    checked = path.read_bytes()

    class Swap(DigestCache):
        def __call__(self, paths):
            shutil.copy(other, path)
            return super().__call__(paths)

    target, _ = attach(path, model, digests=Swap())
    assert target.read_bytes() == checked


def test_one_name_and_revision_is_one_policy(budc, bound_policy, model, trust):
    """A file's name must not decide which of two policies runs."""
    first = bound_policy()
    assert budc("attach", first, model).code == 0
    shutil.copy(first, model / "budc" / "copy.budc.json")
    assert load_policy(model, trust=trust).policy_id == read(first).policy_id
    other = bound_policy(nfe=2)
    assert read(other).document.name == read(model / "budc" / "copy.budc.json").document.name
    shutil.copy(other, model / "budc" / "other.budc.json")
    with pytest.raises(UsageError, match="revision 1, and not the same policy"):
        load_policy(model, trust=trust)
    with pytest.raises(UntrustedKey):
        load_policy(model, trust=Trust(()))


def test_a_model_folder_of_others_is_left_as_it_is(budc, bound_policy, model, trust, public):
    before = sorted(model.rglob("*"))
    outcome = budc("attach", bound_policy(), model, "--user")
    assert outcome.code == 0, outcome.err
    assert sorted(model.rglob("*")) == before
    assert policies(model) == list(user_folder(model).glob("*.budc.json"))
    assert budc("verify", model, "--trust", public).code == 0
    assert load_policy(model, trust=trust).path.parent == user_folder(model)


def test_a_file_in_the_folders_place_says_what_to_do(budc, bound_policy, model):
    (model / "budc").write_text("")
    outcome = budc("attach", bound_policy(), model)
    assert outcome.code == 61
    assert "--user" in outcome.err


def test_a_model_signature_that_was_made_before_is_spoken_of(budc, bound_policy, model):
    path = bound_policy()
    (model / "model.sig").write_text("{}")
    outcome = budc("attach", path, model)
    assert outcome.code == 0
    assert "extra file" in outcome.err
    assert "--user" in outcome.err
    assert budc("attach", path, model, "--user").err == ""


def test_links_are_followed_into_a_hub_caches_blobs_only(budc, bound_policy, model, tmp_path, trust):
    path = bound_policy()
    repository = tmp_path / "models--someone--wan"
    snapshot = repository / "snapshots" / "0123abcd"
    (repository / "blobs").mkdir(parents=True)
    for index, name in enumerate(FILES):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model / name, repository / "blobs" / str(index))
        (snapshot / name).symlink_to(f"../../../blobs/{index}")
    shutil.copy(path, repository / "blobs" / "policy")
    (snapshot / "budc").mkdir()
    (snapshot / "budc" / "a.budc.json").symlink_to("../../../blobs/policy")
    assert load_policy(snapshot, trust=trust).document.name == read(path).document.name
    assert budc("attach", bound_policy(name="second"), snapshot).code == 0
    assert len(policies(snapshot)) == 2
    shutil.copy(path, repository / "elsewhere")
    (snapshot / "budc" / "b.budc.json").symlink_to("../../../elsewhere")
    with pytest.raises(UnsafeWeights):
        policies(snapshot)


def test_push_prepares_a_folder(budc, bound_policy, tmp_path):
    first, second = bound_policy(name="wan-nfe2", nfe=2), bound_policy(name="wan-nfe3")
    out = tmp_path / "repository"
    assert budc("push", first, second, "--out", out, "--base-model", "someone/wan").code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "report.html",
        "wan-nfe2.budc.json",
        "wan-nfe3.budc.json",
    ]
    assert (out / "wan-nfe2.budc.json").read_bytes() == first.read_bytes()
    card = (out / "README.md").read_text()
    assert card.startswith('---\nbase_model: "someone/wan"\n')
    assert read(first).policy_id in card
    for names, word in (
        ((first, first), "several policies of one name"),
        ((bound_policy(name="wan-nfe2", nfe=3),), "not the same"),
    ):
        outcome = budc("push", *names, "--out", out, "--base-model", "someone/wan")
        assert outcome.code == 2
        assert word in outcome.err
    for base in ("someone/wan\n# Trust me", "[wan](http://x)", "a/b/c", ""):
        outcome = budc("push", first, "--out", tmp_path / "other", "--base-model", base or "<b>")
        assert outcome.code == 2
        assert "--base-model" in outcome.err
    newer = bound_policy(name="wan-nfe2", revision=2)
    assert budc("push", newer, "--out", out, "--base-model", "someone/wan").code == 0
    first = bound_policy(name="wan-nfe2", nfe=2)
    outcome = budc("push", first, "--out", out, "--base-model", "someone/wan")
    assert outcome.code == 2
    assert "newer than 1" in outcome.err
    assert (out / "wan-nfe2.budc.json").read_bytes() == newer.read_bytes()
    outcome = budc("push", first, "--out", tmp_path / "other")
    assert outcome.code == 2
    assert "names no repository" in outcome.err


def test_run_and_replay_by_model_folder(budc, compiled, shrunken, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    model = tmp_path / "model"
    shutil.copytree(compiled.weights, model)
    assert budc("attach", compiled.path, model).code == 0
    outcome = budc(
        "run",
        model,
        "--nfe",
        "3",
        "--trust",
        compiled.public,
        "--prompt",
        "a red circle",
        "--out",
        tmp_path / "x.png",
    )
    assert outcome.code == 0, outcome.err
    outcome = budc("verify", model, "--trust", compiled.public, "--replay", "--json")
    assert outcome.code == 0, outcome.err
    details = [layer["detail"] for layer in outcome.record[0]["layers"] if layer["layer"] == "replay"]
    assert [detail.split()[0] for detail in details] == ["latent-mse", "PSNR"]
    assert all("of 3 samples" in detail for detail in details)
    outcome = budc(
        "verify", compiled.path, "--trust", compiled.public, "--weights", model, "--replay", "--samples", "2"
    )
    assert outcome.code == 0, outcome.err
    assert "of 2 samples" in outcome.out
    assert "fewer prompts: within 4 standard errors of " in outcome.out


@pytest.mark.parametrize("samples", [None, "2"])
def test_a_report_that_is_not_true_is_refused(budc, compiled, tmp_path, samples):
    pytest.importorskip("torch")
    document = open_artifact(compiled.path, Trust.from_pem(compiled.public)).document
    better = [
        msgspec.structs.replace(
            metric, mean=metric.mean / 4, worst=metric.worst / 4, geometric_mean=metric.geometric_mean / 4,
            p95=metric.p95 / 4, standard_error=metric.standard_error / 4,
        )
        if metric.name == "latent-mse"
        else metric
        for metric in document.quality.metrics
    ]  # fmt: skip
    document = msgspec.structs.replace(
        document, quality=msgspec.structs.replace(document.quality, metrics=better)
    )
    path = tmp_path / "boast.budc.json"
    path.write_bytes(seal(document, load_signer(compiled.public.with_suffix(".key"))))
    flags = ("--samples", samples) if samples else ()
    outcome = budc(
        "verify",
        path,
        "--trust",
        compiled.public,
        "--weights",
        compiled.weights,
        "--replay",
        *flags,
        "--json",
    )
    assert outcome.code == 29, outcome.err
    assert json.loads(outcome.out)["error"] == "QualityMismatch"


def test_the_tolerance_is_the_reports_and_may_be_stricter(budc, compiled, tmp_path):
    pytest.importorskip("torch")
    document = open_artifact(compiled.path, Trust.from_pem(compiled.public)).document
    assert document.quality.replay_tolerance == 0.02
    off = [
        msgspec.structs.replace(metric, mean=metric.mean * 1.03)
        if metric.name == "latent-mse" and metric.mean * 1.03 < metric.worst
        else metric
        for metric in document.quality.metrics
    ]
    assert off != document.quality.metrics
    quality = msgspec.structs.replace(document.quality, metrics=off, replay_tolerance=0.05)
    path = tmp_path / "coarse.budc.json"
    signer = load_signer(compiled.public.with_suffix(".key"))
    path.write_bytes(seal(msgspec.structs.replace(document, quality=quality), signer))
    verify = ("verify", path, "--trust", compiled.public, "--weights", compiled.weights)
    outcome = budc(*verify, "--replay")
    assert outcome.code == 0, outcome.err
    assert "(tolerance 5 %)" in outcome.out
    assert budc(*verify, "--replay", "--tolerance", "0.02").code == 29
    laxer = budc(*verify, "--replay", "--tolerance", "0.06")
    assert laxer.code == 2
    assert "laxer than the 0.05" in laxer.err
    assert budc(*verify, "--tolerance", "0.01").code == 2


def test_replay_needs_a_model_and_prompts_that_are_here(budc, bound_policy, model, public):
    path = bound_policy()
    assert budc("verify", path, "--trust", public, "--replay").code == 2
    assert budc("verify", path, "--trust", public, "--replay", "--weights", model).code == 34
