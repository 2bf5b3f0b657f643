"""DSSE, the Dead Simple Signing Envelope: signatures over the type and the exact bytes of a payload.

    PAE = "DSSEv1" SP len(type) SP type SP len(payload) SP payload        lengths in decimal ASCII

Rules of verification, in their order:

1. The payload type must be the expected one, whoever signed.
2. An envelope without signatures is unsigned.
3. Signatures are tried against trusted keys, each with the key's own algorithm: first those pairs that key ids and the
   hint name, all of them; then the others, until `MAX_VERIFICATIONS` were made or these have read `MAX_VERIFIED_BYTES`.
   Distinct keys are counted, so one key that signed twice counts once, and so does a signature that two keys would
   accept.
4. When too few keys verified, the key ids and the hint choose the error message and nothing else: if they name
   a trusted key, the content was changed; otherwise the signer is not trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from budc.schema.errors import (
    KeyUnusable,
    SignatureInvalid,
    Unsigned,
    UntrustedKey,
    UsageError,
    WrongPayloadType,
)
from budc.schema.keys import Message, PublicKey
from budc.schema.signers import Signer, public_of

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SIGNATURES = 16
MAX_VERIFICATIONS = 256
MAX_VERIFIED_BYTES = 32 << 20
"""Each verification reads the whole payload where the key is Ed25519, so these bound the time that a file takes."""


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
    message = Message(pae(payload_type, payload))
    try:
        value = bytes.fromhex(signer.sign(message.data).signature)
    except Exception as error:  # clients of five vendors, each with errors of its own
        raise KeyUnusable(f"signing with {key.fingerprint} failed: {error}") from error
    if not key.verifies(value, message):
        raise KeyUnusable(f"the signer's output is not a signature by {key.fingerprint}")
    return Envelope(payload, payload_type, (Signature(value, key.fingerprint),))


def sign_also(envelope: Envelope, signer: Signer, what: str = "artifact") -> Envelope:
    """Return the envelope with a signature by `signer` added; those that are there are not verified.

    Raises:
        UsageError: `signer` has signed it already, or there is no room for another signature.
        KeyUnusable: see `sign`.
    """
    key = public_of(signer)
    message = Message(pae(envelope.payload_type, envelope.payload))
    if any(key.verifies(signature.value, message) for signature in envelope.signatures):
        raise UsageError(
            f"{key.fingerprint} has signed this {what} already",
            remedy="its signature is in the file; there is nothing to do",
        )
    if len(envelope.signatures) >= MAX_SIGNATURES:
        raise UsageError(
            f"the {what} has {len(envelope.signatures)} signatures, the most that a file may have",
            remedy="replace them: budc sign --replace",
        )
    signed = sign(envelope.payload, signer, payload_type=envelope.payload_type)
    return replace(envelope, signatures=envelope.signatures + signed.signatures)


def check_type(envelope: Envelope) -> None:
    """Refuse an envelope whose payload is something else. Raises WrongPayloadType."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise WrongPayloadType(f"payloadType is {envelope.payload_type!r}, expected {PAYLOAD_TYPE}")


def verify(
    envelope: Envelope,
    keys: Sequence[PublicKey],
    *,
    threshold: int = 1,
    hint: str = "",
    what: str = "artifact",
) -> tuple[PublicKey, ...]:
    """Return the trusted keys that signed `envelope`, at least `threshold` of them.

    Args:
        envelope: as read; nothing in its payload has been looked at.
        keys: the trusted keys.
        threshold: how many distinct keys must have signed, 1 or more.
        hint: the bundle's key hint; like key ids it decides what is tried first and which error is raised.
        what: how error messages call what is signed.

    Raises:
        WrongPayloadType, Unsigned, SignatureInvalid, UntrustedKey: see the rules of this module.
    """
    if threshold < 1:
        raise ValueError(f"threshold is {threshold}, expected 1 or more")
    check_type(envelope)
    if not envelope.signatures:
        raise Unsigned(f"the {what} carries no signature")
    signed_by, tried, all_tried = _signers(envelope, tuple(dict.fromkeys(keys)), hint)
    if len(signed_by) >= threshold:
        return signed_by
    claimed = {hint, *(signature.keyid for signature in envelope.signatures)}
    for key in keys:
        if key.fingerprint in claimed and key not in signed_by:
            raise SignatureInvalid(
                f"the signature names the trusted key {key.fingerprint} but does not verify: "
                f"the {what} was changed after signing"
            )
    if not all_tried:
        raise UntrustedKey(
            f"{len(signed_by)} trusted key(s) signed the {what}, {threshold} are required; after {tried} of "
            f"{len(envelope.signatures)} x {len(keys)} pairs of signature and key no more are tried",
            remedy="trust only the keys of publishers whose policies you run, or have it signed by a tool that "
            "writes key ids, such as budc sign",
        )
    if signed_by:
        raise UntrustedKey(f"{len(signed_by)} trusted key(s) signed the {what}, {threshold} are required")
    if not keys:
        raise UntrustedKey(f"the {what} is signed, but there is no trusted key to check it against")
    who = next(iter(sorted(claimed - {""})), "a key that it does not name")
    raise UntrustedKey(f"the {what} is signed by {who}, not by any of the {len(keys)} trusted keys")


def _signers(
    envelope: Envelope, keys: Sequence[PublicKey], hint: str
) -> tuple[tuple[PublicKey, ...], int, bool]:
    """Return the keys that signed, in their order, how many pairs of signature and key were tried, and whether all."""
    message = Message(pae(envelope.payload_type, envelope.payload))
    pairs = [(index, key) for index in range(len(envelope.signatures)) for key in keys]
    # Pairs that the file names come first: those of an artifact that budc signed are found at once.
    unnamed = {
        (index, key): key.fingerprint not in (envelope.signatures[index].keyid, hint) for index, key in pairs
    }
    pairs.sort(key=lambda pair: unnamed[pair])
    named = len(pairs) - sum(unnamed.values())
    most = max(named, min(MAX_VERIFICATIONS, MAX_VERIFIED_BYTES // len(message.data)))
    matched: set[int] = set()
    signed_by: set[PublicKey] = set()
    tried, all_tried = 0, True
    for index, key in pairs:
        if index in matched or key in signed_by:
            continue
        if tried == most:
            all_tried = False
            break
        tried += 1
        if key.verifies(envelope.signatures[index].value, message):
            matched.add(index)
            signed_by.add(key)
    return tuple(key for key in keys if key in signed_by), tried, all_tried
