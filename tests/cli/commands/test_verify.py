import json
from pathlib import Path

import msgspec
import pytest

from budc.schema.digests import file_digests
from budc.schema.keys import load_public
from budc.schema.signers import generate_key

GOLDEN = Path(__file__).parents[2] / "golden" / "v1.1"
FILES = ("scheduler/scheduler_config.json", "transformer/config.json", "transformer/model.safetensors")


@pytest.fixture
def model(model_folder, make_document):
    """A model folder, and the binding to it."""
    binding = make_document().model
    variant = msgspec.structs.replace(binding.variants[0], files=file_digests(model_folder, FILES))
    return model_folder, msgspec.structs.replace(binding, variants=[variant])


def layers(outcome):
    return [line.split()[1] for line in outcome.out.splitlines() if line.startswith("ok ")]


def test_every_layer_that_passed_has_a_line(budc, sealed, public, model):
    folder, binding = model
    outcome = budc("verify", sealed(model=binding), "--trust", public, "--weights", folder)
    assert outcome.code == 0
    assert layers(outcome) == ["size", "bundle", "signature", "payload", "age", "model"]
    assert load_public(public).fingerprint in outcome.out
    assert "variant original: all 3 files" in outcome.out


def test_what_it_is_worth_comes_first_and_only_where_all_passed(budc, sealed, public, tmp_path):
    sentence, _, head, *_ = budc("verify", sealed(), "--trust", public).out.splitlines()
    assert sentence.startswith("3 of 6 evaluations: ")
    assert head.startswith("method")
    refused = budc("verify", sealed(), "--trust", public, "--weights", tmp_path)
    assert refused.code == 31
    assert refused.out.startswith("ok  size ")
    assert "evaluations: " not in refused.out


def test_without_weights_the_model_is_said_to_be_unchecked(budc, sealed, public):
    outcome = budc("verify", sealed(), "--trust", public)
    assert outcome.code == 0
    assert "not checked: pass --weights" in outcome.out


def test_changed_weights(budc, sealed, public, model):
    folder, binding = model
    path = sealed(model=binding)
    (folder / FILES[2]).write_text("another content")
    outcome = budc("verify", path, "--trust", public, "--weights", folder)
    assert outcome.code == 32
    assert FILES[2] in outcome.err
    assert layers(outcome)[-1] == "age"


def test_json(budc, sealed, public, model):
    folder, binding = model
    record = budc("verify", sealed(model=binding), "--trust", public, "--weights", folder, "--json").record
    assert record["verified"] is True
    assert record["signedBy"] == [load_public(public).fingerprint]
    assert record["variant"] == "original"
    assert [layer["layer"] for layer in record["layers"]][-1] == "model"


def test_json_of_a_refusal_is_one_object(budc, sealed, public):
    outcome = budc("verify", sealed(signed=False), "--trust", public, "--json")
    assert outcome.record["error"] == "Unsigned"
    assert outcome.record["exitCode"] == outcome.code == 21


def test_nobody_trusted(budc, sealed, configuration):
    outcome = budc("verify", sealed())
    assert outcome.code == 23
    assert "--trust PUB" in outcome.err
    assert str(configuration / "trust.toml") in outcome.err
    assert layers(outcome) == ["size", "bundle"]


def test_another_key(budc, sealed, tmp_path):
    other = tmp_path / "other.pub"
    other.write_bytes(generate_key().public)
    assert budc("verify", sealed(), "--trust", other).code == 23


def test_one_of_several_keys_suffices(budc, sealed, public, tmp_path):
    other = tmp_path / "other.pub"
    other.write_bytes(generate_key().public)
    assert budc("verify", sealed(), "--trust", other, "--trust", public).code == 0


def test_changed_content(budc, sealed, public, make_document):
    path = sealed()
    bundle, other = json.loads(path.read_text()), json.loads(sealed(signed=False, name="other").read_text())
    bundle["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    path.write_text(json.dumps(bundle))
    outcome = budc("verify", path, "--trust", public)
    assert outcome.code == 22
    assert layers(outcome) == ["size", "bundle"]


def test_expired(budc, sealed, public):
    path = sealed(issued_at="2020-01-01T00:00:00Z", not_after="2020-01-02T00:00:00Z")
    outcome = budc("verify", path, "--trust", public)
    assert outcome.code == 25
    assert "2020-01-02" in outcome.err


def test_trust_file(budc, sealed, public, configuration):
    configuration.mkdir(parents=True)
    (configuration / "release.pub").write_bytes(public.read_bytes())
    trust = configuration / "trust.toml"
    trust.write_text('keys = ["release.pub"]\n[minimum-revision]\nwan-nano-nfe3 = 2\n')
    assert budc("verify", sealed(revision=1)).code == 27
    outcome = budc("verify", sealed(revision=2))
    assert outcome.code == 0
    assert "revision 2 (at least 2 required)" in outcome.out
    trust.write_text("keys = 3\n")
    assert budc("verify", sealed()).code == 20


def test_what_format_1_1_added_is_named(budc):
    keys = [part for name in ("ecdsa", "ed25519") for part in ("--trust", GOLDEN / f"{name}.pub")]
    outcome = budc("verify", GOLDEN / "images.budc.json", *keys)
    assert outcome.code == 0
    assert "images; a run checks or refuses each of them" in outcome.out
    assert "schema 1.1" in outcome.out


def test_a_network_without_files_has_no_folder_to_compare(budc, tmp_path):
    path, key = GOLDEN / "network-by-tensor-root.budc.json", GOLDEN / "ecdsa.pub"
    assert budc("verify", path, "--trust", key).code == 0
    # Its tensors could be in any folder.
    assert budc("verify", path, "--trust", key, "--weights", tmp_path).code == 31
    for command in (
        ("attach", path, tmp_path),
        ("run", path, "--trust", key, "--prompt", "x", "--out", tmp_path / "x.png"),
        ("push", path, "--out", tmp_path / "hub"),
    ):
        outcome = budc(*command)
        assert outcome.code == 34, outcome.err


def test_files_that_are_no_artifacts(budc, tmp_path, public):
    path = tmp_path / "x.budc.json"
    for data, code in ((b"{", 12), (b"{}", 13), (b" " * (1 << 20) + b"{}", 11)):
        path.write_bytes(data)
        assert budc("verify", path, "--trust", public).code == code
    missing = budc("verify", tmp_path / "none", "--trust", public)
    assert (missing.code, missing.out) == (10, "")
