"""The signed payload: an in-toto Statement v1 whose predicate is the policy document.

    {"_type":"https://in-toto.io/Statement/v1","predicate":{…},"predicateType":"urn:budc:policy:v1",
     "subject":[{"digest":{"sha256":"…"},"name":"transformer/config.json"},…]}

The subjects are the files of the first variant, sorted by path. A network that is bound to no files has its
denoisers as subjects, by their tensor roots: {"digest":{"budc.tensors.v1":"…"},"name":"transformer"}. The same
document always gives the same bytes, and the policy id is their sha256.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from budc.schema import in_toto, semantics
from budc.schema.additions import check_fields
from budc.schema.digests import TENSOR_SUBJECT
from budc.schema.errors import SchemaViolation, SemanticsViolation
from budc.schema.fields import HexDigest, Name, Path
from budc.schema.in_toto import POLICY_TYPE, STATEMENT_TYPE
from budc.schema.policy import PolicyDocument, SchemaVersion


class Subject(Struct, frozen=True, forbid_unknown_fields=True):
    """One file, or one denoiser without files, that the policy is bound to."""

    name: Path
    digest: Annotated[Mapping[Name, HexDigest], Meta(min_length=1, max_length=1)]
    """By "sha256" for a file, by `TENSOR_SUBJECT` for a denoiser."""


class Statement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """in-toto Statement v1 with a policy as its predicate."""

    type: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: Annotated[Sequence[Subject], Meta(min_length=1, max_length=4096)]
    predicate_type: Literal["urn:budc:policy:v1"]
    predicate: PolicyDocument


def policy_id(payload: bytes) -> str:
    """Return the policy id of these payload bytes, "sha256:<hex>"."""
    return in_toto.payload_id(payload)


def subjects(document: PolicyDocument) -> list[Subject]:
    """Return the files of the document's first variant, or its denoisers if there is none; sorted by name."""
    if not document.model.variants:
        roots = {denoiser.name: denoiser.tensor_root for denoiser in document.model.denoisers}
        return [
            Subject(name, {TENSOR_SUBJECT: roots[name].removeprefix("sha256:")}) for name in sorted(roots)
        ]
    files = document.model.variants[0].files
    return [Subject(name, {"sha256": files[name]}) for name in sorted(files)]


def encode_statement(document: PolicyDocument) -> bytes:
    """Return the payload bytes for `document`, checked by decoding them again.

    Structs are not validated when they are constructed; decoding is what checks them.

    Raises:
        ArtifactSyntax, ArtifactTooLarge, SchemaViolation, SemanticsViolation, UnsafeWeights: as for a file.
    """
    if not document.model.variants and document.model.kind == "pipeline":
        raise SchemaViolation("model.variants is empty, the policy is bound to no files")
    statement = Statement(
        type=STATEMENT_TYPE, subject=subjects(document), predicate_type=POLICY_TYPE, predicate=document
    )
    payload = in_toto.encode_statement(statement)
    decode_statement(payload)
    return payload


def decode_statement(payload: bytes) -> PolicyDocument:
    """Return the document in `payload`, which follows the schema and the semantics.

    Raises:
        ArtifactTooLarge, ArtifactSyntax: the bytes are not canonical JSON, or too many bytes.
        WrongPayloadType: not a statement, or a statement about something else.
        UnsupportedVersion: a policy of another version.
        SchemaViolation: a field is unknown, missing, of the wrong type or out of bounds.
        SemanticsViolation, UnsafeWeights: see `budc.schema.semantics`; or the subjects are not the files of
            the first variant.
    """
    statement = in_toto.decode_as(Statement, payload, POLICY_TYPE, get_args(SchemaVersion))
    document = statement.predicate
    check_fields(document)
    if list(statement.subject) != subjects(document):
        bound = "files of model.variants[0]" if document.model.variants else "denoisers of model.denoisers"
        raise SemanticsViolation(f"subject is not the sorted list of the {bound}")
    semantics.check(document)
    return document
