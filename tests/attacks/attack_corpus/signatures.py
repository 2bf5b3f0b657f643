"""Attacks on who signed: signatures, the signed statement, and its age."""

from __future__ import annotations

from attack_corpus.forge import (
    STRANGER,
    TRUSTED,
    TYPE,
    Add,
    aged,
    bundle,
    changed,
    edited,
    envelope,
    fingerprint,
    flipped,
    malleable,
    pae,
    payload_of,
    policy,
    signature,
    statement,
)


def forged(add: Add) -> None:
    """Signatures over something else, or that are no signature at all."""
    valid = payload_of(statement())
    other = payload_of(changed("revision", to=2))
    add(
        "sig-bit-flipped",
        edited(
            lambda v: v["dsseEnvelope"]["signatures"][0].__setitem__(
                "sig", flipped(v["dsseEnvelope"]["signatures"][0]["sig"])
            )
        ),
        "SignatureInvalid",
        "one bit of the signature",
    )
    add("sig-truncated", signature("sig", "AAAA"), "SignatureInvalid", "three bytes for a signature")
    add(
        "sig-zero-ecdsa",
        malleable(),
        "SignatureInvalid",
        "r = s = 0 under the name of a trusted ECDSA key",
        trust="ecdsa",
    )
    add(
        "sig-payload-swapped",
        bundle(other, TRUSTED, signed=pae(TYPE, valid)),
        "SignatureInvalid",
        "another policy under a good signature",
    )
    add(
        "sig-over-bare-payload",
        bundle(valid, TRUSTED, signed=valid),
        "SignatureInvalid",
        "signed without the type",
    )
    add(
        "sig-over-other-type",
        bundle(valid, TRUSTED, signed=pae("text/plain", valid)),
        "SignatureInvalid",
        "a signature over a text, used for a policy",
    )


def signers(add: Add) -> None:
    """Artifacts that nobody signed, or too few of those who are trusted."""
    valid = payload_of(statement())
    add(
        "sig-stripped",
        edited(lambda v: v["dsseEnvelope"].pop("signatures")),
        "Unsigned",
        "the list of signatures is gone",
    )
    add("sig-empty-list", envelope("signatures", []), "Unsigned", "the list of signatures is empty")
    add("sig-stranger", bundle(valid, STRANGER), "UntrustedKey", "a good signature by nobody who is trusted")
    add(
        "sig-stranger-allowed-unsigned",
        bundle(valid, STRANGER),
        "UntrustedKey",
        "allowing unsigned artifacts allows no foreign signature",
        unsigned=True,
    )
    add(
        "sig-stranger-claims-trusted-keyid",
        bundle(
            valid,
            STRANGER,
            edit=lambda v: v["dsseEnvelope"]["signatures"][0].__setitem__("keyid", fingerprint(TRUSTED)),
        ),
        "SignatureInvalid",
        "a stranger under a trusted key's name",
    )
    add(
        "sig-stranger-claims-trusted-hint",
        bundle(
            valid,
            STRANGER,
            edit=lambda v: v["verificationMaterial"]["publicKey"].__setitem__("hint", fingerprint(TRUSTED)),
        ),
        "SignatureInvalid",
        "a stranger under a trusted key's hint",
    )


def thresholds(add: Add) -> None:
    """Signatures that do not count, where several or others are required."""
    valid = payload_of(statement())
    add(
        "sig-one-key-twice",
        bundle(valid, TRUSTED, TRUSTED),
        "UntrustedKey",
        "one key counted for two",
        trust="two",
    )
    add(
        "sig-one-of-two",
        bundle(valid, TRUSTED, STRANGER),
        "UntrustedKey",
        "one trusted signature where two are required",
        trust="two",
    )
    add(
        "sig-key-of-other-family",
        bundle(valid, TRUSTED),
        "UntrustedKey",
        "a key that may sign for another family",
        trust="family",
    )
    add(
        "sig-key-of-no-family",
        bundle(valid, TRUSTED),
        "UntrustedKey",
        "a key that may sign for no family, which is not every family",
        trust="no-family",
    )


def encodings(add: Add) -> None:
    """Signatures that are written as none may be, or that choose how they are checked."""
    valid = payload_of(statement())
    add("sig-seventeen", bundle(valid, *[TRUSTED] * 17), "SchemaViolation", "more signatures than are read")
    add("sig-not-base64", signature("sig", "!!!!"), "ArtifactSyntax", "a signature that is not base64")
    add("sig-urlsafe-base64", signature("sig", "-_-_"), "ArtifactSyntax", "the other alphabet of base64")
    add(
        "sig-base64-slack-bits", signature("sig", "AAF="), "ArtifactSyntax", "two spellings of the same bytes"
    )
    add(
        "sig-names-an-algorithm",
        signature("alg", "none"),
        "SchemaViolation",
        "the file chooses the algorithm",
    )
    add(
        "sig-brings-its-key",
        signature("publicKey", "-----BEGIN PUBLIC KEY-----"),
        "SchemaViolation",
        "the file brings the key to be checked with",
    )
    add(
        "sig-certificate-in-place-of-key",
        edited(lambda v: v.__setitem__("verificationMaterial", {"certificate": {"rawBytes": "AAAA"}})),
        "SchemaViolation",
        "a certificate of the file's own choice",
    )
    add(
        "sig-wrong-payload-type",
        bundle(valid, TRUSTED, kind="application/json"),
        "WrongPayloadType",
        "a good signature over something of another type",
    )
    add(
        "sig-control-character-in-keyid",
        signature("keyid", "\x1b]0;owned\x07"),
        "SchemaViolation",
        "a terminal escape as a key's name",
    )


def statements(add: Add) -> None:
    """Signed statements that are not one of a policy, or of other files."""
    add(
        "statement-other-predicate",
        policy(statement() | {"predicateType": "https://slsa.dev/provenance/v1"}),
        "WrongPayloadType",
        "a good signature over another kind of attestation",
    )
    add("statement-not-one", bundle(b"{}", TRUSTED), "WrongPayloadType", "not an in-toto statement")
    add("statement-a-list", bundle(b"[]", TRUSTED), "WrongPayloadType", "JSON of another kind")
    add(
        "statement-next-major",
        policy(statement() | {"predicateType": "urn:budc:policy:v2"}),
        "UnsupportedVersion",
        "a version that is not known",
    )
    add(
        "statement-next-minor",
        policy(changed("schemaVersion", to="1.2")),
        "UnsupportedVersion",
        "a minor version that is not known",
    )
    add(
        "statement-subject-missing",
        policy(statement() | {"subject": statement()["subject"][1:]}),
        "SemanticsViolation",
        "a bound file that is no subject",
    )
    add(
        "statement-subject-other-digest",
        policy(
            statement()
            | {"subject": [item | {"digest": {"sha256": "0" * 64}} for item in statement()["subject"]]}
        ),
        "SemanticsViolation",
        "subjects and variant disagree",
    )
    add(
        "statement-subject-order",
        policy(statement() | {"subject": statement()["subject"][::-1]}),
        "SemanticsViolation",
        "subjects in another order",
    )
    add(
        "statement-unknown-field",
        policy(statement() | {"note": "x"}),
        "SchemaViolation",
        "a field beside the predicate",
    )


def ages(add: Add) -> None:
    """Artifacts that have expired, were replaced or are denied."""
    add(
        "age-expired",
        policy(aged("2020-01-01T00:00:00Z", not_after="2020-01-02T00:00:00Z")),
        "Expired",
        "notAfter has passed",
    )
    add(
        "age-clock-set-back",
        policy(aged("2998-01-01T00:00:00Z", not_after="2999-01-01T00:00:00Z")),
        "Expired",
        "issued after what the clock says, so that notAfter says nothing",
    )
    add(
        "age-rollback",
        policy(statement()),
        "RevisionTooOld",
        "an old revision, still well signed",
        trust="minimum",
    )
    add(
        "age-denied",
        policy(statement()),
        "Denied",
        "a policy that the trust file denies by id",
        trust="denied",
    )
    add(
        "age-no-such-day",
        policy(changed("issuedAt", to="2026-02-30T00:00:00Z")),
        "SemanticsViolation",
        "a day that is not",
    )
    add(
        "age-newline",
        policy(changed("issuedAt", to="2026-07-01T12:00:00Z\n")),
        "SchemaViolation",
        "a newline that $ lets pass",
    )
