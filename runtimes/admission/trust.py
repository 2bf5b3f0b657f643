"""What a runtime is given to run, turned into a policy that somebody vouches for."""

import warnings
from os import PathLike

from budc.schema.artifact import Artifact, check_age, open_artifact, verify
from budc.schema.errors import Unsigned
from budc.schema.policy import PolicyDocument
from budc.schema.statement import encode_statement, policy_id
from budc.schema.trust import Trust

Source = str | PathLike[str] | Artifact | PolicyDocument
"""A `.budc.json` file, what was read from one, or a document that was never sealed."""


class UnsignedWarning(UserWarning):
    """A policy runs without a signature, because the user allowed it."""


def trusted_document(
    artifact: Source, trust: Trust | str | PathLike[str] | None, allow_unsigned: bool
) -> PolicyDocument:
    """Return the policy in `artifact`; for a runtime's entry point, whose caller is who gets warned.

    Args:
        artifact: what the user gave.
        trust: whom to believe: a `Trust`, the path of one public key, or nobody.
        allow_unsigned: run what nobody signed, with an `UnsignedWarning`.

    Raises:
        TrustError: nobody trusted has signed it, it is denied, or it has expired.
        ArtifactError: it is not a valid policy.
    """
    if trust is not None and not isinstance(trust, Trust):
        trust = Trust.from_pem(trust)
    believed = trust or Trust(keys=())
    if isinstance(artifact, PolicyDocument):
        if not allow_unsigned:
            raise Unsigned("a bare policy document carries no signature")
        believed.check_denied(policy_id(encode_statement(artifact)))
        check_age(artifact, believed)
        _say_unsigned(artifact)
        return artifact
    if not isinstance(artifact, Artifact):
        artifact = open_artifact(artifact, believed, allow_unsigned=allow_unsigned)
    elif (artifact.signed or not allow_unsigned) and (trust or not artifact.verified_by):
        # An artifact that was merely read has been believed by nobody.
        verify(artifact, believed)
    else:
        # Believed earlier, or unsigned by permission; it may have expired since.
        believed.check_denied(artifact.policy_id)
        check_age(artifact.document, believed)
    if not artifact.signed:
        _say_unsigned(artifact.document)
    return artifact.document


def _say_unsigned(document: PolicyDocument) -> None:
    warnings.warn(f"{document.name} is not signed: nobody vouches for it", UnsignedWarning, stacklevel=4)
