"""What a report is made from: artifacts and evaluations, found in files and folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from budc.cli.report.frames import FrameSet, find_frames
from budc.schema.artifact import SUFFIX as ARTIFACT_SUFFIX
from budc.schema.artifact import read, verify
from budc.schema.attestation import SUFFIX as EVALUATION_SUFFIX
from budc.schema.attestation import UNSIGNED_BYTES, read_evaluation
from budc.schema.claimed_evaluation import open_claimed
from budc.schema.errors import ArtifactError, NotEvaluated, TrustError, UsageError, naming
from budc.schema.files import read_limited

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.attestation import Attestation
    from budc.schema.evaluation import EvaluationDocument
    from budc.schema.keys import PublicKey
    from budc.schema.policy import PolicyDocument
    from budc.schema.trust import Trust


@dataclass(frozen=True)
class Source:
    """One policy of a report."""

    artifact: Artifact
    path: Path
    signers: tuple[str, ...] = ()
    """Who signed it, of those who are trusted."""
    doubt: str = ""
    """Why it is not verified; empty where it is."""
    evaluations: Mapping[Path, Attestation] = field(default_factory=dict)
    """By their files, each with the evaluators who signed it, of those who are trusted; verified ones first."""
    frames: tuple[FrameSet, ...] = ()
    """Of each setting of the first evaluation that has its frames beside it."""
    no_frames: str = ""
    """Why there are none although an evaluation kept some; else empty."""

    @property
    def document(self) -> PolicyDocument:
        """The policy and everything that it depends on."""
        return self.artifact.document


def read_sources(
    paths: Sequence[Path], evaluations: Sequence[Path], trust: Trust, *, must_verify: bool
) -> list[Source]:
    """Return the policies in `paths`, files or folders, with the evaluations that are there or in `evaluations`.

    Args:
        paths: artifacts, or folders of them. A folder's evaluations are taken where they are of one of the policies.
        evaluations: further evaluations, each of one of the policies.
        trust: whose signatures count.
        must_verify: refuse an artifact that nobody in `trust` vouches for; else the source says why not.

    Raises:
        ArtifactError: a file, also one of frames, is not what it should be, or a folder holds no policy.
        TrustError: an artifact is not verified, and must be; an evaluation was changed after signing, or is denied.
        UsageError: an evaluation is of another policy.
        NotEvaluated: what an evaluation calls the calibrated setting is not that of its policy; or an artifact must be
            verified, and has no evaluation that `trust` requires.
    """
    sources: dict[str, Source] = {}
    for path in [file for given in paths for file in _artifacts(given)]:
        with naming(path):
            source = _source(path, trust, must_verify=must_verify)
        sources.setdefault(source.artifact.policy_id, source)
    found = [file for given in paths if given.is_dir() for file in _listed(given, EVALUATION_SUFFIX)]
    beside = {path: _read(path) for path in found}
    named = {path: _read(path) for path in evaluations}
    for path, (document, _) in named.items():
        if document.policy not in sources:
            raise UsageError(
                f"{path} is an evaluation of {document.policy_name} ({document.policy}), which is not in this report",
                remedy=f"give the artifact of {document.policy_name} as well, or leave out the evaluation",
            )
    # One by its real path: an evaluation may lie in a folder and be named as well.
    measured = {Path(os.path.realpath(path)): read for path, read in (beside | named).items()}
    found_policies = [_evaluated(source, measured, trust) for source in sources.values()]
    return sorted(found_policies, key=lambda source: source.document.budget.nfe)


def _evaluated(
    source: Source, measured: Mapping[Path, tuple[EvaluationDocument, bytes]], trust: Trust
) -> Source:
    """Return a policy with those evaluations, by their files, that are of it."""
    identity = source.artifact.policy_id
    own: dict[Path, Attestation] = {}
    for path, (document, content) in measured.items():
        if document.policy == identity:
            with naming(path):
                own[path] = open_claimed(content, identity, source.document, trust)
    own = dict(sorted(own.items(), key=lambda item: not item[1].verified_by))
    frames, no_frames = find_frames(own)
    return replace(source, evaluations=own, frames=frames, no_frames=no_frames)


def _read(path: Path) -> tuple[EvaluationDocument, bytes]:
    """Return what an evaluation says, and its content: what is judged later is what was read."""
    with naming(path):
        content = read_limited(path, UNSIGNED_BYTES)
        return read_evaluation(content).document, content


def _artifacts(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = _listed(path, ARTIFACT_SUFFIX)
    if not found:
        raise ArtifactError(
            f"there is no policy in {path} (*{ARTIFACT_SUFFIX})",
            remedy="give an artifact, or the folder that `budc compile --sweep` wrote",
        )
    return found


def _listed(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder with this suffix, and those of `budc/` in it, where a model's policies are."""
    places = (folder, folder / "budc")
    return sorted(path for place in places if place.is_dir() for path in place.glob(f"*{suffix}"))


def _source(path: Path, trust: Trust, *, must_verify: bool) -> Source:
    artifact = read(path)
    try:
        keys = verify(artifact, trust)
    except (TrustError, NotEvaluated) as error:
        if must_verify:
            raise
        return Source(artifact, path, doubt=str(error))
    return Source(artifact, path, signers=tuple(_named(key, trust) for key in keys))


def _named(key: PublicKey, trust: Trust) -> str:
    name = trust.names.get(key.fingerprint)
    return f"{name}, {key.fingerprint}" if name else key.fingerprint
