"""The payload of a signed evaluation: an in-toto Statement v1 about a policy.

    {"_type":"https://in-toto.io/Statement/v1","predicate":{…},"predicateType":"urn:budc:evaluation:v1",
     "subject":[{"digest":{"budc.policy.v1":"<64 hex>"},"name":"<policy name>"}]}

The subject's digest is the policy id. It has a name of its own, because no file has that sha256.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from budc.schema import evaluation_rules, in_toto
from budc.schema.errors import SemanticsViolation
from budc.schema.evaluation import EvaluationDocument, EvaluationVersion
from budc.schema.fields import HexDigest, Name
from budc.schema.in_toto import EVALUATION_TYPE, STATEMENT_TYPE

SUBJECT: Final = "budc.policy.v1"


class _Subject(Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    digest: Annotated[Mapping[Literal["budc.policy.v1"], HexDigest], Meta(min_length=1, max_length=1)]


class _Statement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[Sequence[_Subject], Meta(min_length=1, max_length=1)]
    predicate_type: Literal["urn:budc:evaluation:v1"]
    predicate: EvaluationDocument


def evaluation_id(payload: bytes) -> str:
    """Return the id of these payload bytes, "sha256:<hex>": what a metric of a policy names as its origin."""
    return in_toto.payload_id(payload)


def encode_evaluation(document: EvaluationDocument) -> bytes:
    """Return the payload for a document."""
    statement = _Statement(
        type=STATEMENT_TYPE,
        subject=_subjects(document),
        predicate_type=EVALUATION_TYPE,
        predicate=document,
    )
    return in_toto.encode_statement(statement)


def decode_evaluation(payload: bytes) -> EvaluationDocument:
    """Return the document in `payload`, which follows the schema and the rules.

    Raises:
        ArtifactTooLarge, ArtifactSyntax, WrongPayloadType, UnsupportedVersion, SchemaViolation: see `decode_as`.
        SemanticsViolation: see `budc.schema.evaluation_rules`; or the subject is not the policy.
    """
    statement = in_toto.decode_as(_Statement, payload, EVALUATION_TYPE, get_args(EvaluationVersion))
    document = statement.predicate
    if list(statement.subject) != _subjects(document):
        raise SemanticsViolation("subject is not the policy that the predicate names")
    evaluation_rules.check(document)
    return document


def _subjects(document: EvaluationDocument) -> list[_Subject]:
    return [_Subject(document.policy_name, {SUBJECT: document.policy.removeprefix("sha256:")})]
