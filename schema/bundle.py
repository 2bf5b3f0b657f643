"""The file around the envelope: a Sigstore bundle v0.3 in JSON, with a key hint as verification material.

    {"dsseEnvelope":{"payload":"<base64>","payloadType":"application/vnd.in-toto+json",
                     "signatures":[{"keyid":"sha256:…","sig":"<base64>"}]},
     "mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial":{"publicKey":{"hint":"sha256:…"}}}

Only the envelope's payload is signed. The hint, the key ids and the log entries that other tools add are not, so
they decide nothing. Sigstore's own clients expect one signature; this reader accepts none (an unsigned
artifact) to `MAX_SIGNATURES`.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct, field

from budc.schema import canonical
from budc.schema.envelope import MAX_SIGNATURES, Envelope, Signature
from budc.schema.errors import ArtifactSyntax, ArtifactTooLarge, SchemaViolation, UnsupportedVersion

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_ANY_BUNDLE = "application/vnd.dev.sigstore.bundle"

_Printable = Annotated[str, Meta(max_length=512, pattern=r"\A[ -~]*\Z")]


class _Signature(Struct, frozen=True, forbid_unknown_fields=True):
    sig: Annotated[str, Meta(min_length=1, max_length=4096)]
    keyid: _Printable = ""


class _Envelope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    payload: str
    payload_type: _Printable
    # Writers of protocol buffers leave empty lists out, so a stripped list and an empty one are the same.
    signatures: Annotated[Sequence[_Signature], Meta(max_length=MAX_SIGNATURES)] = field(default_factory=list)


class _PublicKey(Struct, frozen=True, forbid_unknown_fields=True):
    hint: _Printable = ""


class _Material(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    public_key: _PublicKey
    tlog_entries: Sequence[Any] = field(default_factory=list)
    timestamp_verification_data: Any = None


class _Bundle(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    media_type: _Printable
    verification_material: _Material
    dsse_envelope: _Envelope


@dataclass(frozen=True)
class Bundle:
    """An envelope and the key hint of its bundle."""

    envelope: Envelope
    hint: str = ""


def encode_bundle(
    envelope: Envelope, *, remedy: str = "list fewer files or variants, or shorten the annotations"
) -> bytes:
    """Return the bytes of the file for `envelope`; the hint is the key id of its first signature.

    Args:
        envelope: what is in it.
        remedy: what would make it smaller.

    Raises:
        ArtifactTooLarge: the file would be over the size cap.
    """
    signatures = [{"keyid": s.keyid, "sig": _encode64(s.value)} for s in envelope.signatures]
    data = canonical.encode(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": signatures[0]["keyid"] if signatures else ""}},
            "dsseEnvelope": {
                "payload": _encode64(envelope.payload),
                "payloadType": envelope.payload_type,
                "signatures": signatures,
            },
        }
    )
    if len(data) > canonical.MAX_BYTES:
        raise ArtifactTooLarge(
            f"the file would be {len(data)} bytes, the limit is {canonical.MAX_BYTES}", remedy=remedy
        )
    return data


def decode_bundle(data: bytes) -> Bundle:
    """Return the envelope in the artifact file `data`. Its payload is not parsed and its signatures are not verified.

    Raises:
        ArtifactTooLarge, ArtifactSyntax: over the size cap, not JSON, or malformed base64.
        UnsupportedVersion: a bundle of another version.
        SchemaViolation: not such a bundle.
    """
    value = canonical.parse(data)
    media_type = value.get("mediaType") if isinstance(value, dict) else None
    if media_type != MEDIA_TYPE:
        if isinstance(media_type, str) and media_type.startswith(_ANY_BUNDLE):
            raise UnsupportedVersion(f"mediaType is {media_type}, this release reads {MEDIA_TYPE}")
        raise SchemaViolation(f"not a budc artifact: mediaType is {media_type!r}, expected {MEDIA_TYPE}")
    try:
        bundle = msgspec.convert(value, type=_Bundle)
    except msgspec.ValidationError as error:
        raise SchemaViolation(f"the bundle around the payload is malformed: {error}") from None
    signatures = tuple(
        Signature(_decode64(s.sig, f"signatures[{index}].sig"), s.keyid)
        for index, s in enumerate(bundle.dsse_envelope.signatures)
    )
    payload = _decode64(bundle.dsse_envelope.payload, "payload")
    envelope = Envelope(payload, bundle.dsse_envelope.payload_type, signatures)
    return Bundle(envelope, bundle.verification_material.public_key.hint)


def _encode64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode64(text: str, where: str) -> bytes:
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise ArtifactSyntax(f"dsseEnvelope.{where} is not base64: {error}") from None
    if _encode64(data) != text:
        raise ArtifactSyntax(f"dsseEnvelope.{where} is not the standard base64 of its bytes")
    return data
