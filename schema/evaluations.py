"""Evaluations beside an artifact: which files they are, which can be believed, and whether one shows what is required.

Beside `NAME.budc.json` these are `NAME.evaluation.json` and `NAME.ANYTHING.evaluation.json`, so that several evaluators
may add theirs. A file is not believed for lying there: each is opened against the user's trust.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from budc.schema.attestation import SUFFIX, Attestation, open_evaluation, read_evaluation
from budc.schema.bounds import in_words, unmet
from budc.schema.canonical import MAX_BYTES
from budc.schema.errors import ArtifactError, BudcError, NotEvaluated
from budc.schema.files import read_limited
from budc.schema.keys import PublicKey
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

MOST = 64
"""Files that are read beside one artifact, so that a folder full of them takes bounded time."""
_POLICY_SUFFIX = ".budc.json"
_ID = len("sha256:")
_SHOWN = 3


@dataclass(frozen=True)
class Found:
    """A file beside an artifact: an evaluation that can be believed, or why it cannot."""

    path: Path
    evaluation: Attestation | None = None
    refusal: BudcError | None = None


def stem(artifact: Path) -> str:
    """Return NAME, with which the names of an artifact's evaluations begin."""
    name = artifact.name
    return name.removesuffix(_POLICY_SUFFIX) if name.endswith(_POLICY_SUFFIX) else artifact.stem


def evaluation_path(artifact: Path, key: PublicKey) -> Path:
    """Return where an evaluation signed by `key` is written beside an artifact.

    That is NAME.evaluation.json. Where another evaluator's file has that name, it is NAME.ID.evaluation.json, with the
    first eight digits of the key's fingerprint.
    """
    plain = artifact.with_name(f"{stem(artifact)}{SUFFIX}")
    own = artifact.with_name(f"{stem(artifact)}.{key.fingerprint[_ID : _ID + 8]}{SUFFIX}")
    return own if os.path.lexists(own) or (os.path.lexists(plain) and not _signed_by(plain, key)) else plain


def find_evaluations(
    artifact: Path, policy_id: str, policy: PolicyDocument, trust: Trust
) -> tuple[Found, ...]:
    """Open the evaluations beside an artifact, those named by its policy; return them in the order of their names."""
    try:
        with os.scandir(artifact.parent) as entries:
            names = sorted(entry.name for entry in entries if is_evaluation_of(entry.name, stem(artifact)))
    except (OSError, ValueError) as error:
        return (Found(artifact.parent, refusal=ArtifactError(f"cannot look for evaluations: {error}")),)
    found = []
    for path in (artifact.with_name(name) for name in names[:MOST]):
        try:
            found.append(Found(path, open_evaluation(path, policy_id, policy, trust)))
        except BudcError as error:
            found.append(Found(path, refusal=error))
    if len(names) > MOST:
        many = ArtifactError(f"{len(names)} evaluations are beside it, of which {MOST} were read")
        found.append(Found(artifact.parent, refusal=many))
    return tuple(found)


def is_evaluation_of(name: str, stem: str) -> bool:
    """Whether a file's name is that of an evaluation of the artifact called `stem`."""
    return name.startswith(f"{stem}.") and name.endswith(SUFFIX)


def copies(artifact: Path, policy_id: str, target: Path) -> dict[Path, bytes]:
    """Return what lies beside a copy of an artifact at `target`: the evaluations of the policy, whoever signed them."""
    return {
        target.with_name(stem(target) + path.name[len(stem(artifact)) :]): data
        for path, data in own_evaluations(artifact, policy_id).items()
    }


def own_evaluations(artifact: Path, policy_id: str) -> dict[Path, bytes]:
    """Return the evaluations beside an artifact that are of this policy, whoever signed them, with their contents."""
    contents = {}
    for name in sorted(os.listdir(artifact.parent)):
        if not is_evaluation_of(name, stem(artifact)):
            continue
        try:
            # Read once: what is copied is what was looked at.
            data = read_limited(artifact.with_name(name), MAX_BYTES)
            if read_evaluation(data).document.policy != policy_id:
                continue
        except BudcError:
            continue
        contents[artifact.with_name(name)] = data
    return contents


def check_required(name: str, found: Sequence[Found], trust: Trust) -> Found | None:
    """Return the first evaluation that meets what `trust` requires; None where it requires nothing.

    Raises:
        NotEvaluated: none does; the message says for each file which bound it does not meet, or why it is not believed.
    """
    if not trust.required:
        return None
    reasons = []
    for item in found:
        why = (
            str(item.refusal) if item.evaluation is None else unmet(trust.required, item.evaluation.document)
        )
        if why is None:
            return item
        reasons.append(f"{item.path.name}: {why}")
    shown = "; ".join(reasons[:_SHOWN]) + (f"; and {len(reasons) - _SHOWN} more" if reasons[_SHOWN:] else "")
    raise NotEvaluated(
        f"{name} has no evaluation with {in_words(trust.required)}. {shown or 'There is none beside it'}"
    )


def _signed_by(path: Path, key: PublicKey) -> bool:
    """Whether an evaluation names `key` as its first signer, so that its evaluator may replace it."""
    try:
        return read_evaluation(path).hint == key.fingerprint
    except BudcError:
        return False
