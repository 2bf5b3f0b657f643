"""Signed evaluations: an evaluator attests to what was measured of a policy, which may be another's.

    write_atomic(path, seal_evaluation(document, load_signer("lab.key")))
    evaluation = open_evaluation(path, artifact.policy_id, artifact.document, Trust.load("trust.toml"))

The file is a bundle like that of a policy; its payload is in `budc.schema.evaluation_statement`.
"""

import os
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from budc.schema import canonical, evaluation_rules
from budc.schema import envelope as dsse
from budc.schema.bundle import Bundle, decode_bundle, encode_bundle
from budc.schema.envelope import Envelope, Signature
from budc.schema.errors import (
    ArtifactError,
    ArtifactTooLarge,
    SchemaViolation,
    Unsigned,
    UntrustedKey,
)
from budc.schema.evaluation import EvaluationDocument
from budc.schema.evaluation_statement import decode_evaluation, encode_evaluation, evaluation_id
from budc.schema.files import read_limited
from budc.schema.in_toto import EVALUATION_TYPE
from budc.schema.keys import PublicKey
from budc.schema.policy import PolicyDocument
from budc.schema.published import EVALUATION_SCHEMA, check_schema
from budc.schema.signers import Signer
from budc.schema.trust import Trust

SUFFIX: Final = ".evaluation.json"
UNSIGNED_BYTES: Final = 16 * canonical.MAX_BYTES
"""Limit of an evaluation that is not signed, which is laid out for people."""
_UNSIGNED = "its evaluator signs it: budc sign FILE --key KEY"
_TOO_LARGE = "leave out the values of each prompt: budc evaluate --summary, which measures nothing again"


@dataclass(frozen=True)
class Attestation:
    """An evaluation, the exact bytes of its statement, and the signatures over them."""

    payload: bytes
    document: EvaluationDocument
    signatures: tuple[Signature, ...] = ()
    hint: str = ""
    """What the bundle says about the key; proves nothing."""
    verified_by: tuple[PublicKey, ...] = ()
    """The evaluators who signed; empty unless `open_evaluation` verified it."""

    @property
    def digest(self) -> str:
        """Return its id, "sha256:<hex>": what a metric of a policy names as its origin."""
        return evaluation_id(self.payload)


def seal_evaluation(document: EvaluationDocument, signer: Signer) -> bytes:
    """Return the signed file of an evaluation, checked by reading it back and against the published schema.

    Raises:
        ArtifactTooLarge: it does not fit, which a summary does.
        ArtifactError: the document is not valid.
        KeyUnusable: the signer fails.
    """
    attestation = _unsigned(document)
    data = add_signature(attestation, signer)
    decode_evaluation(attestation.payload)
    return data


def add_signature(attestation: Attestation, signer: Signer, *, replace_others: bool = False) -> bytes:
    """Return the file of an evaluation with a signature by `signer` added; the others are not verified.

    Raises:
        ArtifactTooLarge: it does not fit, which a summary does.
        ArtifactError: the payload does not follow the published schema.
        UsageError: `signer` has signed it already, or there is no room for another signature.
        KeyUnusable: the signer fails.
    """
    payload = attestation.payload
    if len(payload) > canonical.MAX_BYTES:
        raise ArtifactTooLarge(
            f"the evaluation is {len(payload)} bytes, and a signed one has at most {canonical.MAX_BYTES}",
            remedy=_TOO_LARGE,
        )
    try:
        check_schema(payload, EVALUATION_SCHEMA)
    except ArtifactTooLarge as error:
        raise ArtifactTooLarge(str(error), remedy=_TOO_LARGE) from error
    others = () if replace_others else attestation.signatures
    signed = dsse.sign_also(Envelope(payload, signatures=others), signer, "evaluation")
    return encode_bundle(signed, remedy=_TOO_LARGE)


def read_evaluation(source: bytes | str | os.PathLike[str]) -> Attestation:
    """Return the evaluation in a file (bytes or a path), signed or not, without deciding about trust.

    Raises:
        ArtifactError, WrongPayloadType: it is none, or not valid.
    """
    data = source if isinstance(source, bytes) else read_limited(source, UNSIGNED_BYTES)
    return _unsigned(_plain(data)) if is_unsigned(data) else _attestation(decode_bundle(data))


def open_evaluation(
    source: bytes | str | os.PathLike[str], policy_id: str, policy: PolicyDocument, trust: Trust
) -> Attestation:
    """Return an evaluation (bytes or a path) of a policy, if a trusted evaluator signed it.

    The payload is parsed only after a signature over its bytes has been verified.

    Args:
        source: the file.
        policy_id: the policy that it must be of.
        policy: that policy.
        trust: whose keys are believed as evaluators', for which families of models, and what is denied.

    Raises:
        TrustError: unsigned, changed, denied, or signed by nobody who is trusted as an evaluator.
        ArtifactError, WrongPayloadType: what it holds is no valid evaluation.
        NotEvaluated: it is of another policy, or what it calls the calibrated setting is not that of the policy.
    """
    data = source if isinstance(source, bytes) else read_limited(source, canonical.MAX_BYTES)
    if is_unsigned(data):
        raise Unsigned("the evaluation is not signed", remedy=_UNSIGNED)
    bundle = decode_bundle(data)
    try:
        keys = dsse.verify(bundle.envelope, trust.evaluators, hint=bundle.hint, what="evaluation")
    except Unsigned as error:
        raise Unsigned(str(error), remedy=_UNSIGNED) from error
    except UntrustedKey as error:
        raise _untrusted(error, bundle, trust) from error
    trust.check_denied(evaluation_id(bundle.envelope.payload))
    attestation = _attestation(bundle)
    keys = trust.check_evaluator(policy.model.family, keys)
    evaluation_rules.check_policy(attestation.document, policy_id, policy)
    return replace(attestation, verified_by=keys)


def is_unsigned(data: bytes) -> bool:
    """Whether a file is laid out as `budc evaluate` does without a key, in place of a bundle. Raises ArtifactError."""
    value = canonical.parse(data, limit=UNSIGNED_BYTES, what="evaluation")
    return isinstance(value, dict) and "mediaType" not in value and {"policy", "settings"} <= value.keys()


def is_evaluation(data: bytes) -> bool:
    """Whether a file holds an evaluation, signed or not, by what it says of itself; nothing is verified."""
    try:
        if is_unsigned(data):
            return True
        value = canonical.parse(decode_bundle(data).envelope.payload)
    except ArtifactError:
        return False
    return isinstance(value, dict) and value.get("predicateType") == EVALUATION_TYPE


def _untrusted(error: UntrustedKey, bundle: Bundle, trust: Trust) -> UntrustedKey:
    """Return the error with the role that is missing, unless it is about the number of keys."""
    signatures = bundle.envelope.signatures
    if len(signatures) * len(trust.evaluators) > dsse.MAX_VERIFICATIONS:
        return error
    claimed = [identity for identity in (*(item.keyid for item in signatures), bundle.hint) if identity]
    publishers = {key.fingerprint for key in trust.keys}
    who = next((identity for identity in claimed if identity in publishers), None)
    if who is not None:
        return UntrustedKey(
            f"it is signed by {trust.names.get(who, who)}, whom you trust as a publisher and not as an evaluator",
            remedy="if that is intended, remove the key and add it again with --role publisher --role evaluator",
        )
    who = claimed[0] if claimed else "a key that it does not name"
    return UntrustedKey(
        f"it is signed by {who}, whom you do not trust as an evaluator",
        remedy="if you know the evaluator, add their public key: budc trust add PUB --role evaluator",
    )


def _unsigned(document: EvaluationDocument) -> Attestation:
    return Attestation(encode_evaluation(document), document)


def _plain(data: bytes) -> EvaluationDocument:
    """Return the document of a file that `budc evaluate` wrote without a key."""
    value = canonical.parse(data, limit=UNSIGNED_BYTES, what="evaluation")
    try:
        document = msgspec.convert(value, type=EvaluationDocument)
    except msgspec.ValidationError as error:
        raise SchemaViolation(f"evaluation does not follow the schema: {error}") from None
    evaluation_rules.check(document)
    return document


def _attestation(bundle: Bundle) -> Attestation:
    dsse.check_type(bundle.envelope)
    payload = bundle.envelope.payload
    return Attestation(
        payload, decode_evaluation(payload), signatures=bundle.envelope.signatures, hint=bundle.hint
    )
