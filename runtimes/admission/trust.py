"""May this policy run: who has signed what a runtime was given, and is the signature trusted."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike

from budc.schema.additions import at_lowest_version
from budc.schema.arguments import path_argument, source_argument
from budc.schema.artifact import Artifact, check_age, check_evaluated, open_artifact, verify
from budc.schema.errors import NotEvaluated, Unsigned, UntrustedKey
from budc.schema.policy import PolicyDocument
from budc.schema.statement import encode_statement, policy_id
from budc.schema.trust import Trust

Source = str | PathLike[str] | Artifact | PolicyDocument
"""A `.budc.json` file, what was read from one, or a document that was never sealed."""

_SHOWN = len("sha256:") + 12
"""Characters of a fingerprint that are shown for a key without a name."""


class UnsignedWarning(UserWarning):
    """A policy runs without a signature, because the user allowed it."""


@dataclass(frozen=True)
class TrustedPolicy:
    """A policy document that may run."""

    document: PolicyDocument
    signers: tuple[str, ...] = ()
    """The trusted keys that signed it, by name or fingerprint; empty where it is unsigned."""


def trusted_policy(
    artifact: Source, trust: Trust | str | PathLike[str] | None, allow_unsigned: bool, *, calls: int = 1
) -> TrustedPolicy:
    """Return the policy in `artifact` if it may run. Call it in a runtime's entry point, whose caller gets the warning.

    Args:
        artifact: what the user gave.
        trust: whom to trust: a `Trust`, the path of one public key, or nobody.
        allow_unsigned: run what nobody signed, with an `UnsignedWarning`.
        calls: how many calls of budc are between the user's code, which the warning names, and this one.

    Raises:
        UsageError: an argument of another kind.
        TrustError: nobody trusted has signed it, it is denied, or it has expired.
        ArtifactError: it is not a valid policy.
        NotEvaluated: the trust requires an evaluation, and there is none that meets what is required.
    """
    trusted = _as_trust(trust)
    if not isinstance(artifact, Artifact | PolicyDocument):
        source_argument(
            artifact, "artifact", "pass the path of a .budc.json file, or what open_artifact returned"
        )
    if isinstance(artifact, PolicyDocument):
        if not allow_unsigned:
            raise Unsigned(
                "a bare policy document has no signature",
                remedy="pass a signed artifact, or allow_unsigned=True to run it all the same",
            )
        trusted.check_denied(policy_id(encode_statement(at_lowest_version(artifact))))
        check_age(artifact, trusted)
        if trusted.required:
            raise NotEvaluated(
                f"{artifact.name}: an evaluation is required, and a bare policy document has none beside it",
                remedy="pass the artifact's path",
            )
        _warn_unsigned(artifact, calls)
        return TrustedPolicy(artifact)
    with _python_remedies(trust_given=trust is not None):
        if not isinstance(artifact, Artifact):
            artifact = open_artifact(artifact, trusted, allow_unsigned=allow_unsigned)
        elif (artifact.signed or not allow_unsigned) and (trust is not None or not artifact.verified_by):
            # An artifact that was merely read has not been verified.
            artifact = replace(artifact, verified_by=verify(artifact, trusted))
        else:
            # Verified earlier, or allowed to be unsigned; it may have expired since.
            trusted.check_denied(artifact.policy_id)
            check_age(artifact.document, trusted)
            check_evaluated(artifact, trusted)
    if not artifact.signed:
        _warn_unsigned(artifact.document, calls)
    fingerprints = [key.fingerprint for key in artifact.verified_by]
    signers = tuple(trusted.names.get(key, f"{key[:_SHOWN]}…") for key in fingerprints)
    return TrustedPolicy(artifact.document, signers)


def unevaluated(trust: Trust | str | PathLike[str] | None) -> Trust | str | PathLike[str] | None:
    """Return the trust without required evaluations: what is being evaluated need not have been evaluated before."""
    return replace(trust, required=()) if isinstance(trust, Trust) else trust


def _as_trust(trust: Trust | str | PathLike[str] | None) -> Trust:
    if trust is None:
        return Trust(keys=())
    if isinstance(trust, Trust):
        return trust
    trust = path_argument(trust, "trust", "pass a Trust, or the path of the publisher's public key")
    trusted = Trust.from_pem(trust)
    return replace(trusted, names={key.fingerprint: trust.name for key in trusted.keys})


@contextmanager
def _python_remedies(trust_given: bool) -> Iterator[None]:
    """Name Python's arguments in the remedies of errors that are the user's to mend."""
    try:
        yield
    except Unsigned as error:
        remedy = "ask its publisher for a signed one, or pass allow_unsigned=True to run it all the same"
        raise Unsigned(str(error), remedy=remedy) from error
    except UntrustedKey as error:
        if trust_given:
            raise
        remedy = "pass trust=, the public key of its publisher, if you trust them"
        raise UntrustedKey(str(error), remedy=remedy) from error


def _warn_unsigned(document: PolicyDocument, calls: int) -> None:
    message = f"{document.name} is not signed: nobody vouches for it"
    warnings.warn(message, UnsignedWarning, stacklevel=3 + calls)
