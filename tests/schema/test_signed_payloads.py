"""Payloads that a trusted key has signed: the signature does not make them policies."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from budc.schema import canonical
from budc.schema import envelope as dsse
from budc.schema.artifact import open_artifact, read
from budc.schema.bundle import encode_bundle
from budc.schema.errors import (
    ArtifactSyntax,
    BudcError,
    SchemaViolation,
    SemanticsViolation,
    UnsupportedVersion,
    WrongPayloadType,
)
from budc.schema.signers import Signer
from budc.schema.statement import decode_statement
from budc.schema.trust import Trust

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def edit(payload: bytes, old: bytes, new: bytes) -> bytes:
    assert payload.count(old) >= 1
    return payload.replace(old, new, 1)


def without_first_subject(payload: bytes) -> bytes:
    statement = json.loads(payload)
    del statement["subject"][0]
    return canonical.encode(statement)


SIGNED: dict[str, tuple[Callable[[bytes], bytes], type[BudcError]]] = {
    "empty": (lambda _: b"", ArtifactSyntax),
    "nan": (lambda payload: edit(payload, b'"guidance":5', b'"guidance":NaN'), ArtifactSyntax),
    "minus-zero": (lambda payload: edit(payload, b'"guidance":5', b'"guidance":-0'), ArtifactSyntax),
    "integer-as-float": (lambda payload: edit(payload, b'"frames":9', b'"frames":9.0'), ArtifactSyntax),
    "whitespace": (lambda payload: payload + b"\n", ArtifactSyntax),
    "duplicate-key": (lambda payload: edit(payload, b'"frames":9', b'"frames":9,"frames":9'), ArtifactSyntax),
    "deep": (
        lambda payload: edit(payload, b'"frames":9', b'"frames":' + b"[" * 99 + b"]" * 99),
        ArtifactSyntax,
    ),
    "not-a-statement": (lambda _: b"{}", WrongPayloadType),
    "a-list": (lambda _: b"[]", WrongPayloadType),
    "another-predicate": (
        lambda payload: edit(payload, b"urn:budc:policy:v1", b"https://slsa.dev/provenance/v1"),
        WrongPayloadType,
    ),
    "next-major": (
        lambda payload: edit(payload, b"urn:budc:policy:v1", b"urn:budc:policy:v2"),
        UnsupportedVersion,
    ),
    "next-minor": (
        lambda payload: edit(payload, b'"schemaVersion":"1.0"', b'"schemaVersion":"1.2"'),
        UnsupportedVersion,
    ),
    "a-field-of-the-next-minor": (
        lambda payload: edit(payload, b'"payload":"trunk-residual"', b'"payload":"trunk-output"'),
        SchemaViolation,
    ),
    "no-version": (
        lambda payload: edit(payload, b'"schemaVersion":"1.0"', b'"schemaVersion":"one"'),
        SchemaViolation,
    ),
    "unknown-field": (
        lambda payload: edit(payload, b'"frames":9', b'"frames":9,"framez":9'),
        SchemaViolation,
    ),
    "wrong-type": (lambda payload: edit(payload, b'"frames":9', b'"frames":"9"'), SchemaViolation),
    "explicit-null": (
        lambda payload: edit(payload, b'"notAfter":"2030-01-01T00:00:00Z"', b'"notAfter":null'),
        SchemaViolation,
    ),
    "explicit-empty": (
        lambda payload: edit(payload, b'"adapters":{', b'"adapters":{"digests":[],'),
        SchemaViolation,
    ),
    "subject-missing": (without_first_subject, SemanticsViolation),
    "subject-other": (
        lambda payload: payload[:-200] + edit(payload[-200:], b"a" * 64, b"f" * 64),
        SemanticsViolation,
    ),
    "nfe": (lambda payload: edit(payload, b'"nfe":3', b'"nfe":4'), SemanticsViolation),
    "control-character": (lambda payload: edit(payload, "für".encode(), b"\\u001b["), SchemaViolation),
}


@pytest.mark.parametrize("name", SIGNED)
def test_a_signed_payload_that_is_no_policy_is_refused_by_class(
    sealed: bytes, signer: Signer, trust: Trust, name: str
) -> None:
    change, error = SIGNED[name]
    data = encode_bundle(dsse.sign(change(read(sealed).payload), signer))
    with pytest.raises(BudcError) as caught:
        open_artifact(data, trust, now=NOW)
    assert type(caught.value) is error, caught.value


def test_an_unknown_field_is_named(sealed: bytes) -> None:
    with pytest.raises(SchemaViolation, match="framez"):
        decode_statement(edit(read(sealed).payload, b'"frames":9', b'"frames":9,"framez":9'))
