import json
from typing import Any

import pytest

from budc.schema.bundle import MEDIA_TYPE, decode_bundle, encode_bundle
from budc.schema.envelope import Envelope, Signature
from budc.schema.errors import (
    ArtifactSyntax,
    ArtifactTooLarge,
    BudcError,
    SchemaViolation,
    UnsupportedVersion,
)

ENVELOPE = Envelope(b"payload", signatures=(Signature(b"\x00\x01", "sha256:ab"),))


def changed(**paths: Any) -> bytes:
    """The bundle of ENVELOPE with values replaced: `a__b=1` sets ["a"]["b"]; None deletes."""
    value = json.loads(encode_bundle(ENVELOPE))
    for path, new in paths.items():
        *parents, last = path.split("__")
        holder = value
        for name in parents:
            holder = holder[name]
        if new is None:
            del holder[last]
        else:
            holder[last] = new
    return json.dumps(value).encode()


def test_the_bytes_of_a_bundle() -> None:
    assert encode_bundle(ENVELOPE) == (
        b'{"dsseEnvelope":{"payload":"cGF5bG9hZA==","payloadType":"application/vnd.in-toto+json",'
        b'"signatures":[{"keyid":"sha256:ab","sig":"AAE="}]},'
        b'"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",'
        b'"verificationMaterial":{"publicKey":{"hint":"sha256:ab"}}}'
    )


@pytest.mark.parametrize("envelope", [ENVELOPE, Envelope(b""), Envelope(b"\xff" * 1000, "x/y")])
def test_decoding_inverts_encoding(envelope: Envelope) -> None:
    bundle = decode_bundle(encode_bundle(envelope))
    assert bundle.envelope == envelope
    assert bundle.hint == (envelope.signatures[0].keyid if envelope.signatures else "")


def test_what_other_tools_add_or_leave_out_is_tolerated() -> None:
    logged = changed(
        verificationMaterial__tlogEntries=[{"logIndex": "1"}],
        verificationMaterial__timestampVerificationData={"rfc3161Timestamps": []},
    )
    assert decode_bundle(logged).envelope == ENVELOPE
    sparse = changed(verificationMaterial__publicKey={}, dsseEnvelope__signatures=[{"sig": "AAE="}])
    assert decode_bundle(sparse).envelope.signatures == (Signature(b"\x00\x01"),)
    assert decode_bundle(changed(dsseEnvelope__signatures=None)).envelope.signatures == ()
    assert decode_bundle(json.dumps(json.loads(changed()), indent=2).encode()).envelope == ENVELOPE


BAD: dict[str, tuple[bytes, type[BudcError]]] = {
    "not-json": (b"PK\x03\x04", ArtifactSyntax),
    "duplicate-key": (changed()[:-1] + b',"mediaType":"x"}', ArtifactSyntax),
    "list": (b"[]", SchemaViolation),
    "media-type-missing": (changed(mediaType=None), SchemaViolation),
    "media-type-other": (changed(mediaType="text/html"), SchemaViolation),
    "media-type-number": (changed(mediaType=3), SchemaViolation),
    "media-type-newline": (changed(mediaType=MEDIA_TYPE + "\n"), UnsupportedVersion),
    "media-type-newer": (
        changed(mediaType="application/vnd.dev.sigstore.bundle.v0.4+json"), UnsupportedVersion,
    ),
    "unknown-field": (changed(note="x"), SchemaViolation),
    "unknown-field-in-envelope": (changed(dsseEnvelope__alg="none"), SchemaViolation),
    "certificate": (
        changed(verificationMaterial={"certificate": {"rawBytes": ""}}), SchemaViolation,
    ),
    "no-envelope": (changed(dsseEnvelope=None), SchemaViolation),
    "no-payload": (changed(dsseEnvelope__payload=None), SchemaViolation),
    "payload-number": (changed(dsseEnvelope__payload=1), SchemaViolation),
    "payload-not-base64": (changed(dsseEnvelope__payload="a?=="), ArtifactSyntax),
    "payload-url-base64": (changed(dsseEnvelope__payload="-_-_"), ArtifactSyntax),
    "payload-unpadded": (changed(dsseEnvelope__payload="cGF5bG9hZA"), ArtifactSyntax),
    "payload-padded-bits": (changed(dsseEnvelope__payload="cGF5bG9hZB=="), ArtifactSyntax),
    "payload-newline": (changed(dsseEnvelope__payload="cGF5bG9hZA==\n"), ArtifactSyntax),
    "payload-not-ascii": (changed(dsseEnvelope__payload="é"), ArtifactSyntax),
    "payload-type-control": (changed(dsseEnvelope__payloadType="a\n"), SchemaViolation),
    "signature-not-base64": (changed(dsseEnvelope__signatures=[{"sig": "?"}]), ArtifactSyntax),
    "signature-empty": (changed(dsseEnvelope__signatures=[{"sig": ""}]), SchemaViolation),
    "signature-missing": (changed(dsseEnvelope__signatures=[{"keyid": "x"}]), SchemaViolation),
    "signatures-many": (changed(dsseEnvelope__signatures=[{"sig": "AAE="}] * 17), SchemaViolation),
    "hint-control": (changed(verificationMaterial__publicKey={"hint": "\x1b[2J"}), SchemaViolation),
    "hint-surrogate": (changed(verificationMaterial__publicKey={"hint": "\ud800"}), ArtifactSyntax),
    "too-large": (changed(note="x" * (1 << 20)), ArtifactTooLarge),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_bundles_are_refused_by_class(name: str) -> None:
    data, error = BAD[name]
    with pytest.raises(error) as caught:
        decode_bundle(data)
    assert type(caught.value) is error


def test_a_bundle_over_the_cap_is_never_written() -> None:
    with pytest.raises(ArtifactTooLarge, match="would be"):
        encode_bundle(Envelope(bytes(800_000)))
