"""All errors of budc, as one tree of exceptions.

Each class stands for one reason. It has an exit code of its own and a remedy, the next thing to try::

    try:
        artifact = open_artifact(path, trust)
    except BudcError as error:
        print(f"error: {error}\\n  try: {error.remedy}")
        raise SystemExit(error.exit_code)

Messages quote files that nobody has verified, so `BudcError` itself cuts them to one line of printable characters;
whoever shows them need not.
"""

# ruff: noqa: N818
# Classes are named after the reason, as in `except Unsigned`, without the suffix Error.

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from budc.schema.printable import printable


class BudcError(Exception):
    """Base of all refusals: a one-line message (what, where), a remedy and an exit code."""

    exit_code: ClassVar[int] = 1
    default_remedy: ClassVar[str] = "run with --help, or report this with the command that you ran"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(printable(message))
        self.remedy = printable(remedy or self.default_remedy)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put a file's name before an error of the with-block that does not have it: there may be many files."""
    try:
        yield
    except BudcError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}", remedy=error.remedy) from error


class UsageError(BudcError):
    """A flag, a policy source or a name given by the user makes no sense."""

    exit_code = 2
    default_remedy = "see the command's --help for the accepted values"


class ArtifactError(BudcError):
    """The artifact's own bytes are not what the format allows."""

    exit_code = 10
    default_remedy = "fetch the artifact again from its publisher"


class ArtifactTooLarge(ArtifactError):
    """The file is over the size cap; nothing of it was parsed."""

    exit_code = 11
    default_remedy = "check that the path names a .budc.json file and not a weight file"


class ArtifactSyntax(ArtifactError):
    """Not JSON, or JSON that the format forbids: NaN, duplicate keys, deep nesting, non-canonical bytes."""

    exit_code = 12
    default_remedy = "fetch the artifact again; an artifact is never edited by hand, compile it anew"


class SchemaViolation(ArtifactError):
    """A field is unknown, missing, of the wrong type or out of bounds."""

    exit_code = 13
    default_remedy = "compile the artifact anew; put notes of your own under `annotations`"


class SemanticsViolation(ArtifactError):
    """Every field is well formed, but they contradict each other."""

    exit_code = 14
    default_remedy = "compile the policy anew; its lengths, budget and coefficients must agree"


class UnsupportedVersion(ArtifactError):
    """The artifact is of a format version that this release cannot read, or uses a feature that it cannot run."""

    exit_code = 15
    default_remedy = "upgrade budc, or ask the publisher for an artifact of version 1.0"


class TrustError(BudcError):
    """The artifact may be well formed, but nobody who is trusted vouches for it."""

    exit_code = 20
    default_remedy = "check the trusted keys and where the artifact comes from"


class Unsigned(TrustError):
    """The artifact carries no signature."""

    exit_code = 21
    default_remedy = "sign it: budc sign FILE --key KEY; or allow unsigned artifacts for this one run"


class SignatureInvalid(TrustError):
    """A signature names a trusted key and does not verify: the content was changed after signing."""

    exit_code = 22
    default_remedy = "discard this file and fetch the artifact again from its publisher"


class UntrustedKey(TrustError):
    """The artifact is signed, but not by (enough of) the trusted keys."""

    exit_code = 23
    default_remedy = "if you know the publisher, add their public key to the trusted keys"


class WrongPayloadType(TrustError):
    """What is signed is something other than a budc policy."""

    exit_code = 24
    default_remedy = "pass a file made by `budc compile`; other attestations are not policies"


class Expired(TrustError):
    """The artifact's `notAfter` has passed, or the clock was set back so that it may have."""

    exit_code = 25
    default_remedy = "fetch a newer revision from the publisher"


class KeyUnusable(TrustError):
    """A key file or key URI cannot be read, or is of a kind that is not accepted."""

    exit_code = 26
    default_remedy = "use an ECDSA P-256 or Ed25519 key in PEM form; `budc keygen` makes one"


class RevisionTooOld(TrustError):
    """The artifact's revision is below the minimum of the trust file (a rollback)."""

    exit_code = 27
    default_remedy = "fetch the current revision from the publisher"


class Denied(TrustError):
    """The trust file denies this very policy or evaluation by its id, whoever signed it."""

    exit_code = 28
    default_remedy = "use what replaces it; `budc trust deny FILE --undo` takes the denial back"


class QualityMismatch(TrustError):
    """The quality report's figures are not what these weights give."""

    exit_code = 29
    default_remedy = "do not rely on the report; compile the policy anew, or ask its publisher"


class ModelError(BudcError):
    """The model on disk is not the one that the policy was made for."""

    exit_code = 30
    default_remedy = "check the model folder against the artifact with `budc verify`"


class WeightsMissing(ModelError):
    """A file that the policy is bound to is not in the model folder."""

    exit_code = 31
    default_remedy = "download the complete model at the revision that the policy names"


class WeightsMismatch(ModelError):
    """A file is there, but its content is not what the policy is bound to."""

    exit_code = 32
    default_remedy = "use the model revision that the policy was compiled for, or compile for this one"


class UnsafeWeights(ModelError):
    """Weights that are not opened: pickles, malformed files, links and paths that leave the model folder."""

    exit_code = 33
    default_remedy = "use safetensors or ONNX files that lie inside the model folder"


class UnsupportedModel(ModelError):
    """The model is of a kind that this release does not know."""

    exit_code = 34
    default_remedy = "list the supported models with `budc models`"


class ParityMismatch(ModelError):
    """A converted model does not compute what its original computes."""

    exit_code = 35
    default_remedy = "convert the model again from the files that the policy is bound to"


class RefusedRun(BudcError):
    """Artifact and model are good, but this run differs from the calibrated one, or nobody showed its quality."""

    exit_code = 40
    default_remedy = "run with the settings that the policy was compiled for"


class CalibrationMismatch(RefusedRun):
    """A run-time setting differs from the calibrated one; the message names the field and both values."""

    exit_code = 41
    default_remedy = "use the calibrated value, or allow an uncalibrated run explicitly"


class CacheConflict(RefusedRun):
    """Another cache is already installed on the model."""

    exit_code = 42
    default_remedy = "disable the other cache before applying a policy"


class NotEvaluated(RefusedRun):
    """No evaluation by a trusted evaluator shows the quality that is required."""

    exit_code = 43
    default_remedy = "ask for an evaluation (`budc evaluate --key`) by a key that you trust as an evaluator"


class CompileError(BudcError):
    """A policy could not be compiled."""

    exit_code = 50
    default_remedy = "check the policy source"


class BudgetImpossible(CompileError):
    """No policy can have the requested budget."""

    exit_code = 51
    default_remedy = "ask for at least one and at most as many evaluations as there are steps"


class JournalCorrupt(CompileError):
    """The compile journal cannot be resumed from."""

    exit_code = 52
    default_remedy = "move the journal away to start the compilation over"


class JournalBusy(CompileError):
    """Another compilation is writing the same journal."""

    exit_code = 53
    default_remedy = "wait for the other compilation, or give this one a journal of its own"


class DeviceMemory(CompileError):
    """The model does not fit into the device's memory, one sample at a time."""

    exit_code = 54
    default_remedy = "use a device with more memory, or a smaller shape in the profile"


class ClusterUnusable(CompileError):
    """The workers of a Ray cluster cannot be started, differ from this machine, or are lost again and again."""

    exit_code = 55
    default_remedy = "check the cluster with `ray status`; the same command resumes, without --ray too"


class MissingExtra(BudcError):
    """An optional dependency is needed and not installed."""

    exit_code = 60
    default_remedy = "install the extra that the message names"


class OutputError(BudcError):
    """A file could not be written."""

    exit_code = 61
    default_remedy = "check that the folder exists, is writable and has space left"


class ProviderMissing(BudcError):
    """The hardware that was asked for cannot be used; nothing falls back to another."""

    exit_code = 62
    default_remedy = "install what the message names, or choose another --provider"
