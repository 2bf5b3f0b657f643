"""The policies that the package brings for its embedded models: signed files, and the list of their digests.

    artifact = embedded_policy("wan2.1-nano", nfe=10)

The list vouches for the files that it names and for nothing else. The demonstration key that signed them is in no
trust store, and its private half was never written down. `benchmarks/embedded_policies.py` makes files, list and key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from budc.option_names import option, python_names
from budc.policies.profile import profile_names
from budc.schema.arguments import instance_argument, whole_number
from budc.schema.artifact import SUFFIX, Artifact, open_artifact
from budc.schema.canonical import MAX_BYTES
from budc.schema.errors import ArtifactError, SignatureInvalid, UsageError
from budc.schema.files import read_limited
from budc.schema.keys import load_public
from budc.schema.mask import MAX_STEPS
from budc.schema.trust import Trust

FOLDER = Path(__file__).parent / "nano" / "policies"
LIST = "policies.json"
KEY = "demonstration.pub"
SIGNER = "the package's demonstration key"

_REINSTALL = "install the package again"


class EmbeddedPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An entry of the list: a policy of the profile `model`, and the sha256 of its file in hex."""

    model: str
    nfe: int
    sha256: str

    @property
    def path(self) -> Path:
        """The signed file."""
        return FOLDER / f"{self.model}-nfe{self.nfe}{SUFFIX}"


@python_names()
def embedded_policy(model: str, nfe: int | None = None, *, rules: Trust | None = None) -> Artifact:
    """Return a policy that came with the package, verified: `budc.apply` takes it without `trust`.

    Args:
        model: the name of an embedded model, as `budc models` lists it.
        nfe: its number of evaluations; may be left out where the model has a single policy.
        rules: a `Trust` whose denials, minimum revisions and required evaluations hold. Its publishers do not matter.

    Raises:
        UsageError: an argument of another kind, a model without policies, or none of so many evaluations.
        SignatureInvalid: the file is not the one that came with the package.
        ArtifactError: the file or the list cannot be read.
        Denied, RevisionTooOld, NotEvaluated: `rules` refuse the policy.
    """
    instance_argument(model, str, "model", "pass a name that `budc models` lists")
    if nfe is not None:
        remedy = "pass the number of evaluations, such as nfe=10, or None"
        nfe = whole_number(nfe, "nfe", least=1, most=MAX_STEPS, remedy=remedy)
    if rules is not None:
        instance_argument(rules, Trust, "rules", "pass Trust.load of a trust file")
    return open_embedded(find_embedded(model, nfe), rules)


def embedded_policies(model: str | None = None) -> tuple[EmbeddedPolicy, ...]:
    """Return the list, or the part of one model, by model and NFE; no policy is opened. Raises ArtifactError."""
    try:
        entries = msgspec.json.decode(read_limited(FOLDER / LIST, MAX_BYTES), type=list[EmbeddedPolicy])
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{FOLDER / LIST}: {error}", remedy=_REINSTALL) from error
    chosen = [entry for entry in entries if model in (None, entry.model)]
    return tuple(sorted(chosen, key=lambda entry: (entry.model, entry.nfe)))


def find_embedded(model: str, nfe: int | None) -> EmbeddedPolicy:
    """Return the entry of a model and a number of evaluations. Raises UsageError, naming those that are there."""
    entries = embedded_policies(model)
    budget = 10 if nfe is None else nfe
    if not entries:
        known = sorted({entry.model for entry in embedded_policies()})
        compiling = f"budc compile --model {model} --budget {budget}, or " if model in profile_names() else ""
        raise UsageError(
            f"no policies come with {model[:100]!r}", remedy=f"{compiling}use {_listed(known, 'or')}"
        )
    matching = [entry for entry in entries if nfe in (None, entry.nfe)]
    if len(matching) == 1:
        return matching[0]
    present = [str(entry.nfe) for entry in entries]
    there = f"{model} comes with policies of {_listed(present, 'and')} evaluations"
    if nfe is None:
        raise UsageError(there, remedy=f"choose one with {option('nfe', entries[-1].nfe)}")
    raise UsageError(
        f"{option('nfe', nfe)}: {there}",
        remedy=f"choose one of these, or budc compile --model {model} --budget {nfe}",
    )


def open_embedded(entry: EmbeddedPolicy, rules: Trust | None) -> Artifact:
    """Return the policy of an entry, verified; see `embedded_policy`."""
    data = read_limited(entry.path, MAX_BYTES)
    if sha256(data) != entry.sha256:
        raise SignatureInvalid(f"{entry.path} is not the file that came with the package", remedy=_REINSTALL)
    return open_artifact(data, demonstration_trust(rules), path=entry.path)


def demonstration_trust(rules: Trust | None) -> Trust:
    """Return trust in the demonstration key, for files that the list vouches for, under the user's rules."""
    key = load_public(FOLDER / KEY)
    names = {key.fingerprint: SIGNER}
    if rules is None:
        return Trust(keys=(key,), names=names)
    return replace(rules, keys=(key,), threshold=1, families={}, names={**rules.names, **names})


def sha256(data: bytes) -> str:
    """Return the digest of a file as the list has it, in hex."""
    return hashlib.sha256(data).hexdigest()


def _listed(names: Sequence[str], word: str) -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]
