"""DSSE, the Dead Simple Signing Envelope: signatures over the type and the exact bytes of a payload.

    PAE = "DSSEv1" SP len(type) SP type SP len(payload) SP payload        lengths in decimal ASCII

Rules of verification, in their order:

1. The payload type must be the expected one, whoever signed.
2. An envelope without signatures is unsigned.
3. Every signature is tried against every trusted key, each with the key's own algorithm. Distinct keys are
   counted, so one key that signed twice counts once. Key ids and hints take no part in this.
4. When too few keys verified, the key ids and the hint choose the error message and nothing else: if they name
   a trusted key, the content was changed; otherwise the signer is not trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from budc.schema.errors import KeyUnusable, SignatureInvalid, Unsigned, UntrustedKey, WrongPayloadType
from budc.schema.keys import PublicKey, Signer, public_of

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SIGNATURES = 16


@dataclass(frozen=True)
class Signature:
    """One signature of an envelope. `keyid` is what the file claims and proves nothing."""

    value: bytes
    keyid: str = ""


@dataclass(frozen=True)
class Envelope:
    """Payload bytes, their type, and the signatures over both."""

    payload: bytes
    payload_type: str = PAYLOAD_TYPE
    signatures: tuple[Signature, ...] = ()


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, signer: Signer, *, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Return the envelope of `payload` with one signature, which is verified before it is returned.

    Raises:
        KeyUnusable: the signer fails, or signs with something other than the key that it shows.
    """
    key = public_of(signer)
    message = pae(payload_type, payload)
    try:
        value = bytes.fromhex(signer.sign(message).signature)
    except Exception as error:  # clients of five vendors, each with errors of its own
        raise KeyUnusable(f"signing with {key.fingerprint} failed: {error}") from error
    if not key.verifies(value, message):
        raise KeyUnusable(f"the signer's output is not a signature by {key.fingerprint}")
    return Envelope(payload, payload_type, (Signature(value, key.fingerprint),))


def check_type(envelope: Envelope) -> None:
    """Refuse an envelope whose payload is something else. Raises WrongPayloadType."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise WrongPayloadType(f"payloadType is {envelope.payload_type!r}, expected {PAYLOAD_TYPE}")


def verify(
    envelope: Envelope, keys: Sequence[PublicKey], *, threshold: int = 1, hint: str = ""
) -> tuple[PublicKey, ...]:
    """Return the trusted keys that signed `envelope`, at least `threshold` of them.

    Args:
        envelope: as read; nothing in its payload has been looked at.
        keys: the trusted keys.
        threshold: how many distinct keys must have signed, 1 or more.
        hint: the bundle's key hint; used to choose the error and for nothing else.

    Raises:
        WrongPayloadType, Unsigned, SignatureInvalid, UntrustedKey: see the rules of this module.
    """
    if threshold < 1:
        raise ValueError(f"threshold is {threshold}, expected 1 or more")
    check_type(envelope)
    if not envelope.signatures:
        raise Unsigned("the artifact carries no signature")
    message = pae(envelope.payload_type, envelope.payload)
    signed_by = tuple(
        key
        for key in dict.fromkeys(keys)
        if any(key.verifies(signature.value, message) for signature in envelope.signatures)
    )
    if len(signed_by) >= threshold:
        return signed_by
    claimed = {hint, *(signature.keyid for signature in envelope.signatures)}
    for key in keys:
        if key.fingerprint in claimed and key not in signed_by:
            raise SignatureInvalid(
                f"the signature names the trusted key {key.fingerprint} but does not verify: "
                "the artifact was changed after signing"
            )
    if signed_by:
        raise UntrustedKey(f"{len(signed_by)} trusted key(s) signed the artifact, {threshold} are required")
    if not keys:
        raise UntrustedKey("the artifact is signed, but there is no trusted key to check it against")
    who = next(iter(sorted(claimed - {""})), "a key that it does not name")
    raise UntrustedKey(f"the artifact is signed by {who}, not by any of the {len(keys)} trusted keys")
