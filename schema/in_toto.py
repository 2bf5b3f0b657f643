"""in-toto Statement v1: subjects by their digests, and a predicate about them whose type says what it is.

{"_type":"https://in-toto.io/Statement/v1","predicate":{…},"predicateType":"urn:budc:policy:v1","subject":[…]}
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from budc.schema import canonical
from budc.schema.errors import SchemaViolation, UnsupportedVersion, WrongPayloadType

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
POLICY_TYPE: Final = "urn:budc:policy:v1"
EVALUATION_TYPE: Final = "urn:budc:evaluation:v1"

S = TypeVar("S", bound=Struct)

_REMEDIES = {
    POLICY_TYPE: "this is a policy, and an evaluation of one is asked for here",
    EVALUATION_TYPE: "this is an evaluation: `budc inspect` shows it, and `budc verify` of the policy lists it",
}


def decode_statement(payload: bytes, predicate_type: str, versions: Sequence[str]) -> object:
    """Return the value of a payload: a statement with a predicate of this type, in one of these versions.

    Types and version are checked before the fields, so that a newer version is not reported as malformed.

    Raises:
        ArtifactTooLarge, ArtifactSyntax: the bytes are not canonical JSON, or too many bytes.
        WrongPayloadType: not a statement, or a statement about something else.
        UnsupportedVersion: a predicate of another version.
    """
    value = canonical.decode(payload, what="payload")
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise WrongPayloadType("payload is not an in-toto Statement v1")
    found = value.get("predicateType")
    if found != predicate_type:
        kind = predicate_type.rpartition(":v")[0]
        if isinstance(found, str) and re.fullmatch(rf"{kind}:v[0-9]{{1,6}}", found):
            raise UnsupportedVersion(f"predicateType is {found}, this release reads {predicate_type}")
        remedy = _REMEDIES.get(found, "") if isinstance(found, str) else ""
        raise WrongPayloadType(f"predicateType is {found!r}, expected {predicate_type}", remedy=remedy)
    predicate = value.get("predicate")
    version = predicate.get("schemaVersion") if isinstance(predicate, dict) else None
    if isinstance(version, str) and version not in versions and re.fullmatch(r"[0-9]+\.[0-9]+", version):
        raise UnsupportedVersion(f"schemaVersion is {version}, this release reads {' and '.join(versions)}")
    return value


def decode_as(kind: type[S], payload: bytes, predicate_type: str, versions: Sequence[str]) -> S:
    """Return the statement in a payload, of a kind that has its predicate and its subjects.

    Raises:
        ArtifactTooLarge, ArtifactSyntax, WrongPayloadType, UnsupportedVersion: see `decode_statement`.
        SchemaViolation: a field is unknown, missing, of the wrong type or out of bounds, or is spelled out as null,
            empty or 0, which canonical JSON leaves out.
    """
    value = decode_statement(payload, predicate_type, versions)
    try:
        statement = msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        raise SchemaViolation(f"payload does not follow the schema: {error}") from None
    if encode_statement(statement) != payload:
        raise SchemaViolation(
            "payload spells out an optional field that is null, empty or 0; leave such a field out"
        )
    return statement


def payload_id(payload: bytes) -> str:
    """Return the id of these payload bytes, "sha256:<hex>"."""
    return "sha256:" + hashlib.sha256(payload).hexdigest()


def encode_statement(statement: Struct) -> bytes:
    """Return the canonical bytes of a statement. Raises SchemaViolation, ArtifactSyntax: it holds what JSON cannot."""
    try:
        return canonical.encode(msgspec.to_builtins(statement))
    except (TypeError, msgspec.MsgspecError) as error:
        raise SchemaViolation(f"the document holds a value that JSON cannot: {error}") from error
