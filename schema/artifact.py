"""Artifacts: a policy document is written to a signed file, and read back only from a file that can be believed.

    signer = load_signer("release.key")
    write_atomic("wan-nfe10.budc.json", seal(document, signer))

    artifact = open_artifact("wan-nfe10.budc.json", Trust.from_pem("release.pub"))
    artifact.document.policy, artifact.policy_id

`open_artifact` works from the outside in and stops at the first layer that fails: size cap, bundle, signature
over the payload bytes, and only then the payload: canonical JSON, schema, semantics, revision, expiry.
"""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from budc.schema import canonical
from budc.schema import envelope as dsse
from budc.schema.additions import at_lowest_version
from budc.schema.arguments import instance_argument, source_argument
from budc.schema.bundle import Bundle, decode_bundle, encode_bundle
from budc.schema.envelope import Envelope, Signature
from budc.schema.errors import Expired, NotEvaluated
from budc.schema.evaluations import check_required, find_evaluations
from budc.schema.files import read_limited
from budc.schema.keys import PublicKey
from budc.schema.policy import PolicyDocument
from budc.schema.published import check_schema
from budc.schema.signers import Signer
from budc.schema.statement import decode_statement, encode_statement, policy_id
from budc.schema.timestamps import format_time, parse_time
from budc.schema.trust import Trust

SUFFIX = ".budc.json"
CLOCK_SKEW = timedelta(days=1)
"""How far this machine's clock may be behind the publisher's. Further behind, it counts as set back."""


@dataclass(frozen=True)
class Artifact:
    """A policy document and the exact bytes that it was read from."""

    payload: bytes
    document: PolicyDocument
    policy_id: str
    """Sha256 of `payload` as "sha256:<hex>"; signatures and bundle do not change it."""
    signatures: tuple[Signature, ...] = ()
    hint: str = ""
    """What the bundle says about the key; proves nothing."""
    verified_by: tuple[PublicKey, ...] = ()
    """The trusted keys that signed; empty unless `open_artifact` verified it."""
    path: Path | None = None

    @property
    def signed(self) -> bool:
        """Whether there is any signature, trusted or not."""
        return bool(self.signatures)


def seal(document: PolicyDocument, signer: Signer | None) -> bytes:
    """Return the artifact file of `document`, signed, or without a signature if `signer` is None.

    The document is encoded, read back and checked against the published schema before anything is signed. Its
    `schemaVersion` is the lowest that has all of its fields, whatever the document says.
    Equal documents give equal payload bytes and so one policy id; an ECDSA signature differs each time.

    Raises:
        ArtifactError: the document is not valid; see `decode_statement`.
        UnsafeWeights: a variant lists a kind of file that is not opened.
        KeyUnusable: the signer fails.
    """
    payload = encode_statement(at_lowest_version(document))
    check_schema(payload)
    return encode_bundle(Envelope(payload) if signer is None else dsse.sign(payload, signer))


def add_signature(artifact: Artifact, signer: Signer, *, replace_others: bool = False) -> bytes:
    """Return the file of `artifact` with a signature by `signer` added.

    The payload is signed as it is, so the policy id stays. Signatures that are already there are not verified.

    Args:
        artifact: from `read`.
        signer: signs the payload.
        replace_others: drop the signatures that are already there.

    Raises:
        ArtifactError: the payload does not follow the published schema, or the file would be too large.
        UsageError: `signer` has signed it already, or there is no room for another signature.
        KeyUnusable: the signer fails.
    """
    check_schema(artifact.payload)
    others = () if replace_others else artifact.signatures
    return encode_bundle(dsse.sign_also(Envelope(artifact.payload, signatures=others), signer))


def read(source: bytes | str | os.PathLike[str]) -> Artifact:
    """Return the artifact in `source` (bytes or a path) without deciding about trust: for inspection only.

    Raises:
        ArtifactError, WrongPayloadType, UnsafeWeights: what it holds is not a valid policy.
    """
    bundle, path = _load(source)
    dsse.check_type(bundle.envelope)
    return _artifact(bundle, path)


def verify(artifact: Artifact, trust: Trust, now: datetime | None = None) -> tuple[PublicKey, ...]:
    """Return the trusted keys that signed an artifact from `read`. Expiry and revision are checked too.

    Args:
        artifact: from `read`.
        trust: whom to believe.
        now: a moment with a time zone; default the clock.

    Raises:
        TrustError: unsigned, changed, signed by nobody trusted, denied, too old a revision or expired.
        NotEvaluated: `trust` requires an evaluation, and none beside the artifact meets what is required.
    """
    envelope = Envelope(artifact.payload, signatures=artifact.signatures)
    keys = dsse.verify(envelope, trust.keys, threshold=trust.threshold, hint=artifact.hint)
    trust.check_denied(artifact.policy_id)
    check_age(artifact.document, trust, now)
    keys = trust.check_family(artifact.document, keys)
    check_evaluated(artifact, trust)
    return keys


def open_artifact(
    source: bytes | str | os.PathLike[str],
    trust: Trust,
    *,
    allow_unsigned: bool = False,
    now: datetime | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Artifact:
    """Return the artifact in `source` (bytes or a path) if it can be believed.

    The payload is parsed only after a trusted signature over its bytes has been verified. Where `trust` requires an
    evaluation, one that meets what is required must lie beside the file.

    Args:
        source: the file.
        trust: whom to believe.
        allow_unsigned: accept an artifact that has no signature at all. `Artifact.signed` is then False, which
            the caller should tell the user. If there are signatures, they must still verify.
        now: a moment with a time zone; default the clock.
        path: the file that bytes were read from, beside which evaluations lie.

    Raises:
        UsageError: an argument of another kind.
        TrustError: unsigned, changed, signed by nobody trusted, of the wrong type, denied, too old or expired.
        ArtifactError, UnsafeWeights: what it holds is not a valid policy.
        NotEvaluated: `trust` requires an evaluation, and there is none that meets what is required.
    """
    instance_argument(
        trust, Trust, "trust", 'pass Trust.from_pem("publisher.pub"), or Trust.load of a trust file'
    )
    bundle, own = _load(source_argument(source, "source", "pass the path of a .budc.json file, or its bytes"))
    if bundle.envelope.signatures or not allow_unsigned:
        keys = dsse.verify(bundle.envelope, trust.keys, threshold=trust.threshold, hint=bundle.hint)
    else:
        dsse.check_type(bundle.envelope)
        keys = ()
    trust.check_denied(policy_id(bundle.envelope.payload))
    artifact = _artifact(bundle, own if path is None else Path(path))
    if artifact.signed:
        keys = trust.check_family(artifact.document, keys)
    check_age(artifact.document, trust, now)
    check_evaluated(artifact, trust)
    return replace(artifact, verified_by=keys)


def _load(source: bytes | str | os.PathLike[str]) -> tuple[Bundle, Path | None]:
    if isinstance(source, bytes):
        return decode_bundle(source), None
    return decode_bundle(read_limited(source, canonical.MAX_BYTES)), Path(source)


def _artifact(bundle: Bundle, path: Path | None) -> Artifact:
    payload = bundle.envelope.payload
    return Artifact(
        payload=payload,
        document=decode_statement(payload),
        policy_id=policy_id(payload),
        signatures=bundle.envelope.signatures,
        hint=bundle.hint,
        path=path,
    )


def check_evaluated(artifact: Artifact, trust: Trust) -> None:
    """Refuse a policy without the evaluation that `trust` requires. Raises NotEvaluated."""
    if not trust.required:
        return
    if artifact.path is None:
        raise NotEvaluated(
            f"{artifact.document.name}: an evaluation is required, and there is no file beside which it could lie",
            remedy="give the artifact's path",
        )
    found = find_evaluations(artifact.path, artifact.policy_id, artifact.document, trust)
    check_required(artifact.document.name, found, trust)


def check_age(document: PolicyDocument, trust: Trust, now: datetime | None = None) -> None:
    """Refuse a document that is older than `trust` allows, or expired at `now` (default: the clock).

    Raises:
        RevisionTooOld: below the minimum revision.
        Expired: `notAfter` has passed; or `now` is so far before `issuedAt` that the clock must have been set
            back, so that nobody can tell.
    """
    trust.check_revision(document)
    if document.not_after is None:
        return
    moment = datetime.now(UTC) if now is None else now
    if moment >= parse_time(document.not_after, field="notAfter"):
        raise Expired(f"{document.name} expired at {document.not_after}")
    if parse_time(document.issued_at, field="issuedAt") - moment > CLOCK_SKEW:
        raise Expired(
            f"{document.name} may have expired: by this machine's clock it is {format_time(moment)}, "
            f"and the policy was issued at {document.issued_at}",
            remedy="set this machine's clock, which is behind",
        )
