import base64
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from budc.schema import artifact as artifacts
from budc.schema.artifact import open_artifact, read, seal, verify
from budc.schema.envelope import PAYLOAD_TYPE, pae
from budc.schema.errors import (
    ArtifactError,
    ArtifactSyntax,
    ArtifactTooLarge,
    Expired,
    RevisionTooOld,
    SchemaViolation,
    SemanticsViolation,
    SignatureInvalid,
    Unsigned,
    UntrustedKey,
)
from budc.schema.keys import PublicKey
from budc.schema.policy import PolicyDocument
from budc.schema.signers import KeyPair, Signer, generate_key, load_signer
from budc.schema.trust import Trust

MakeDocument = Callable[..., PolicyDocument]


NOW = datetime(2027, 1, 1, tzinfo=UTC)


def test_what_was_sealed_is_what_is_opened(
    document: PolicyDocument, sealed: bytes, trust: Trust, tmp_path: Path
) -> None:
    path = tmp_path / "policy.budc.json"
    path.write_bytes(sealed)
    opened = open_artifact(path, trust, now=NOW)
    assert opened.document == document
    assert (opened.signed, opened.verified_by, opened.path) == (True, trust.keys, path)
    assert read(sealed).document == document
    assert read(sealed).verified_by == ()
    assert verify(read(path), trust, NOW) == trust.keys


def test_equal_documents_have_equal_payloads_and_one_policy_id(
    make_document: MakeDocument, signer: Signer
) -> None:
    first, second = seal(make_document(), signer), seal(make_document(), signer)
    assert read(first).payload == read(second).payload
    assert read(first).policy_id == read(second).policy_id == read(seal(make_document(), None)).policy_id
    assert seal(make_document(), None) == seal(make_document(), None)
    assert read(seal(make_document(revision=2), signer)).policy_id != read(first).policy_id


def test_the_policy_id_of_a_known_document(make_document: MakeDocument) -> None:
    # Changes only with the format, or with the document in conftest.py: then decide which it was.
    expected = "sha256:b01430086c793565d218495bca265c0d54a22705dde45f8f4672068fcc4a32ef"
    assert read(seal(make_document(), None)).policy_id == expected


def test_the_statement_names_the_first_variants_files_as_subjects(
    document: PolicyDocument, sealed: bytes
) -> None:
    statement = json.loads(read(sealed).payload)
    files = document.model.variants[0].files
    assert statement["subject"] == [{"name": n, "digest": {"sha256": files[n]}} for n in sorted(files)]
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:budc:policy:v1"


def test_an_unsigned_artifact_opens_only_under_the_flag(document: PolicyDocument, trust: Trust) -> None:
    unsigned = seal(document, None)
    with pytest.raises(Unsigned):
        open_artifact(unsigned, trust, now=NOW)
    with pytest.raises(Unsigned):
        verify(read(unsigned), trust, NOW)
    opened = open_artifact(unsigned, trust, allow_unsigned=True, now=NOW)
    assert (opened.signed, opened.verified_by) == (False, ())


def test_the_flag_for_unsigned_artifacts_does_not_excuse_a_bad_signature(sealed: bytes) -> None:
    stranger = Trust((PublicKey.from_pem(generate_key().public),))
    with pytest.raises(UntrustedKey):
        open_artifact(sealed, stranger, allow_unsigned=True, now=NOW)


def with_payload(sealed: bytes, payload: bytes) -> bytes:
    value = json.loads(sealed)
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    return json.dumps(value).encode()


def test_a_changed_payload_is_tampering_and_is_not_parsed(
    sealed: bytes, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = read(sealed).payload.replace(b'"nfe":3', b'"nfe":4')

    def parsed(_payload: bytes) -> PolicyDocument:
        raise AssertionError("an unverified payload was parsed")

    monkeypatch.setattr(artifacts, "decode_statement", parsed)
    for content in (payload, b"not even JSON", b"[" * 1000):
        with pytest.raises(SignatureInvalid):
            open_artifact(with_payload(sealed, content), trust, now=NOW)


def test_a_stripped_signature_is_unsigned(sealed: bytes, trust: Trust) -> None:
    value = json.loads(sealed)
    del value["dsseEnvelope"]["signatures"]
    with pytest.raises(Unsigned):
        open_artifact(json.dumps(value).encode(), trust, now=NOW)


def test_a_foreign_signature_is_untrusted(document: PolicyDocument, trust: Trust, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(generate_key().private)
    with pytest.raises(UntrustedKey):
        open_artifact(seal(document, load_signer(tmp_path / "key")), trust, now=NOW)


def test_expiry_is_the_second_that_not_after_names(sealed: bytes, trust: Trust) -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    open_artifact(sealed, trust, now=end - timedelta(seconds=1))
    with pytest.raises(Expired, match="2030-01-01T00:00:00Z"):
        open_artifact(sealed, trust, now=end)
    with pytest.raises(Expired):
        verify(read(sealed), trust, end)


def test_without_a_moment_the_clock_decides(
    make_document: MakeDocument, signer: Signer, trust: Trust
) -> None:
    past = make_document(issued_at="2020-01-01T00:00:00Z", not_after="2020-01-02T00:00:00Z")
    with pytest.raises(Expired):
        open_artifact(seal(past, signer), trust)


def test_a_clock_that_was_set_back_does_not_bring_an_expired_policy_back(sealed: bytes, trust: Trust) -> None:
    issued = datetime(2026, 7, 1, 12, tzinfo=UTC)
    open_artifact(sealed, trust, now=issued - timedelta(days=1))
    with pytest.raises(Expired, match="2026-06-30T11:59:59Z") as caught:
        open_artifact(sealed, trust, now=issued - timedelta(days=1, seconds=1))
    assert "clock" in caught.value.remedy


def test_what_never_expires_asks_no_clock(make_document: MakeDocument, signer: Signer, trust: Trust) -> None:
    ageless = make_document(issued_at="2999-01-01T00:00:00Z", not_after=None)
    assert open_artifact(seal(ageless, signer), trust).document == ageless


def test_a_rollback_is_refused_even_when_signed(sealed: bytes, trust: Trust) -> None:
    strict = Trust(trust.keys, minimum_revisions={"wan-nano-nfe3": 2})
    with pytest.raises(RevisionTooOld):
        open_artifact(sealed, strict, now=NOW)


def test_nothing_invalid_is_sealed(make_document: MakeDocument, signer: Signer) -> None:
    shape = make_document().shape
    for broken, error in [
        (make_document(shape=replace(shape, frames=0)), SchemaViolation),
        (make_document(shape=replace(shape, frames=1.5)), SchemaViolation),
        (make_document(name="two words"), SchemaViolation),
        (make_document(sampler=replace(make_document().sampler, guidance=float("nan"))), ArtifactSyntax),
        (make_document(budget=replace(make_document().budget, nfe=2)), SemanticsViolation),
        (make_document(search=replace(make_document().search, seed=object())), SchemaViolation),
        (make_document(model=replace(make_document().model, variants=[])), SchemaViolation),
    ]:
        with pytest.raises(error):
            seal(broken, signer)


def test_a_document_over_the_cap_is_not_sealed(make_document: MakeDocument, signer: Signer) -> None:
    model = make_document().model
    files = {f"transformer/{'x' * 180}-{index}.safetensors": "a" * 64 for index in range(4096)}
    variants = [replace(model.variants[0], files=files)]
    with pytest.raises(ArtifactTooLarge):
        seal(make_document(model=replace(model, variants=variants)), signer)


def test_a_file_over_the_cap_or_missing_is_refused_before_it_is_read(trust: Trust, tmp_path: Path) -> None:
    path = tmp_path / "large.budc.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ArtifactTooLarge):
        open_artifact(path, trust)
    with pytest.raises(ArtifactError, match="gone"):
        read(tmp_path / "gone")


def test_openssl_verifies_the_signature_over_the_pae_bytes(
    sealed: bytes, key_pair: KeyPair, tmp_path: Path
) -> None:
    envelope = json.loads(sealed)["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    (tmp_path / "pub").write_bytes(key_pair.public)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))

    def openssl(message: bytes) -> int:
        (tmp_path / "pae").write_bytes(message)
        command = ["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "pae"]
        return subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, timeout=20).returncode

    assert openssl(pae(PAYLOAD_TYPE, payload)) == 0
    assert openssl(pae(PAYLOAD_TYPE, payload + b" ")) == 1
    assert openssl(payload) == 1


def test_reading_an_artifact_imports_neither_torch_nor_numpy_nor_a_key_service() -> None:
    code = "import sys, budc.schema.artifact, budc.schema.digest_cache; print(' '.join(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    modules: set[Any] = set(output.stdout.split())
    assert "budc.schema.digests" in modules
    assert not modules & {
        "torch",
        "numpy",
        "onnx",
        "onnxruntime",
        "diffusers",
        "jsonschema",
        "securesystemslib",
    }
