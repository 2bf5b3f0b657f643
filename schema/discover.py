"""Policies beside the weights: `MODEL_DIR/budc/NAME.budc.json`, or a folder of the user's own.

A file is not trusted for lying there: `load_policy` opens every one against the user's trust and chooses among
those that are believed.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from budc.schema import canonical
from budc.schema import folder as model_folder
from budc.schema.arguments import instance_argument, path_argument, whole_number
from budc.schema.artifact import SUFFIX, Artifact, open_artifact, read
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import ArtifactError, BudcError, OutputError, UsageError
from budc.schema.evaluations import copies
from budc.schema.files import read_limited, write_atomic
from budc.schema.mask import MAX_STEPS
from budc.schema.model_files import accepted_files
from budc.schema.trust import Trust

FOLDER = "budc"
SIGNATURE = "model.sig"
"""An OpenSSF model signature, which lists every file of the folder."""


def user_folder(model: str | os.PathLike[str]) -> Path:
    """Return where the user keeps policies for the model folder `model`, by its real path."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser())
    name = hashlib.sha256(os.fsencode(os.path.realpath(model))).hexdigest()[:16]
    return data / "budc" / "attached" / name


def policies(model: str | os.PathLike[str]) -> list[Path]:
    """Return the artifacts attached to a model folder, sorted by name; nothing is opened.

    Raises:
        UnsafeWeights: one of them is a link out of the model folder, or no file.
    """
    beside = [model_folder.resolve(model, f"{FOLDER}/{name}") for name in _names(Path(model, FOLDER))]
    own = user_folder(model)
    return beside + [own / name for name in _names(own)]


def load_policy(
    model: str | os.PathLike[str],
    nfe: int | None = None,
    *,
    name: str | None = None,
    trust: Trust,
    allow_unsigned: bool = False,
) -> Artifact:
    """Return the attached policy that is believed and has `nfe` evaluations and the name `name`, if given.

    Of several revisions under one name the newest counts.

    Raises:
        ArtifactError: no policy is attached.
        UsageError: an argument of another kind; or `nfe` and `name` leave none of those that are believed, or several;
            or two different policies are one revision of one name.
        BudcError: none is believed; the reason of the first.
    """
    instance_argument(
        trust, Trust, "trust", 'pass Trust.from_pem("publisher.pub"), or Trust.load of a trust file'
    )
    model = path_argument(model, "model", "pass the model folder")
    if nfe is not None:
        remedy = "pass the number of evaluations, such as nfe=10, or None"
        nfe = whole_number(nfe, "nfe", least=1, most=MAX_STEPS, remedy=remedy)
    paths = policies(model)
    if not paths:
        raise ArtifactError(
            f"no policy is attached to {model}", remedy="budc attach POLICY MODEL_DIR, or name the artifact"
        )
    artifacts: list[Artifact] = []
    refusals: list[BudcError] = []
    for path in paths:
        try:
            artifacts.append(replace(open_artifact(path, trust, allow_unsigned=allow_unsigned), path=path))
        except BudcError as error:
            refusals.append(error)
    if not artifacts:
        raise refusals[0]
    refuse_rivals(artifacts)
    believed: dict[str, Artifact] = {}
    for artifact in artifacts:
        other = believed.get(artifact.document.name)
        if other is None or other.document.revision < artifact.document.revision:
            believed[artifact.document.name] = artifact
    matching = [
        artifact
        for artifact in believed.values()
        if nfe in (None, artifact.document.budget.nfe) and name in (None, artifact.document.name)
    ]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(f"{a.document.name} (NFE {a.document.budget.nfe})" for a in believed.values())
    refused = f"; {len(refusals)} others are not believed" if refusals else ""
    raise UsageError(
        f"{len(matching)} policies attached to {model} match, of {listed}{refused}",
        remedy="choose one by its NFE or its name",
    )


class Attached(NamedTuple):
    """Where a policy is attached."""

    path: Path
    changed: bool
    """Whether anything was written: the policy, or an evaluation of it."""


def attach(
    source: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    user: bool = False,
    digests: DigestCache | None = None,
) -> Attached:
    """Copy an artifact beside the model that it is bound to, whole or not at all; return where it is.

    Evaluations of the policy that lie beside the artifact come along.

    Args:
        source: the artifact. Its signatures are not verified: that is up to whoever runs it.
        model: the model folder; it must hold the artifact's model, see `accepted_files`.
        user: write to the user's own folder and leave the model folder as it is.
        digests: hashes the model's files.

    Raises:
        ArtifactError, ModelError: not an artifact, or one for another model.
        UsageError: a newer revision is already attached under that name.
        OutputError: the folder cannot be written.
    """
    # Read once: what is written is what was checked.
    data = read_limited(source, canonical.MAX_BYTES)
    artifact = read(data)
    accepted_files(model, artifact.document.model, digests or DigestCache())
    folder = user_folder(model) if user else Path(model, FOLDER)
    target = folder / f"{artifact.document.name}{SUFFIX}"
    refuse_older(target, artifact)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not user and folder.is_symlink():
            raise OutputError(f"{folder} is a link", remedy="remove it, or attach with --user")
        # Evaluations first: the policy is not found without them.
        files = copies(Path(source), artifact.policy_id, target) | {target: data}
        changed = {path: content for path, content in files.items() if not _holds(path, content)}
        for path, content in changed.items():
            write_atomic(path, content)
    except (OSError, OutputError) as error:
        if user or (isinstance(error, OutputError) and not isinstance(error.__cause__, OSError)):
            raise
        raise OutputError(
            f"{folder} cannot be written: {error}",
            remedy="attach with --user, which leaves the model folder alone",
        ) from error
    return Attached(target, changed=bool(changed))


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file has exactly this content."""
    try:
        return read_limited(path, len(content)) == content
    except ArtifactError:
        return False


def refuse_older(target: Path, artifact: Artifact) -> None:
    """Refuse to replace the artifact at `target`, if there is one, by an older revision. Raises UsageError."""
    if not os.path.isfile(target):
        return
    present = read(target).document
    if present.revision > artifact.document.revision:
        raise UsageError(
            f"{target} is revision {present.revision}, newer than {artifact.document.revision}",
            remedy="remove that file first if you want the older one",
        )


def refuse_rivals(artifacts: Iterable[Artifact]) -> None:
    """Refuse two policies of one name and revision with other contents: nothing says which one is meant.

    Raises:
        UsageError: there are two; the message names their files.
    """
    seen: dict[tuple[str, int], Artifact] = {}
    for artifact in artifacts:
        document = artifact.document
        other = seen.setdefault((document.name, document.revision), artifact)
        if other.policy_id != artifact.policy_id:
            raise UsageError(
                f"{other.path} and {artifact.path} are both {document.name} revision {document.revision}, "
                "and not the same policy",
                remedy="remove one, or publish it under another name or revision",
            )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and name[0] != ".")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read {folder}: {error}") from error
