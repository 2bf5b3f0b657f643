"""The policy that `budc run` is given: an artifact, one attached to a folder, or one that came with a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from budc.schema.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.trust import Trust


class ChosenPolicy(NamedTuple):
    """A policy that may run, and the trust that says so."""

    artifact: Artifact
    trust: Trust


def choose_policy(
    source: str,
    nfe: int | None,
    trusted: Sequence[Path],
    *,
    required: str | None = None,
    allow_unsigned: bool = False,
) -> ChosenPolicy:
    """Open the policy that `source` names. The name of a model wins over a file or folder; ./NAME is the file.

    Without `trusted`, a policy of the package is believed by the package's own list. With it, nothing but its keys
    counts. `required` are the bounds of --require-evaluation.

    Raises:
        UsageError: no policy, or several, have `nfe` evaluations; or `nfe` beside an artifact.
        BudcError: see `load_trust`, `open_artifact`, `load_policy` and `embedded_policy`.
    """
    from budc.cli.trust_store import load_trust, open_trusted
    from budc.policies.embedded_policies import demonstration_trust, find_embedded, open_embedded
    from budc.policies.profile import profile_names
    from budc.schema.discover import load_policy

    trust = load_trust(trusted, required)
    if source in profile_names():
        entry = find_embedded(source, nfe)
        if trusted:
            return ChosenPolicy(open_trusted(entry.path, trust), trust)
        return ChosenPolicy(open_embedded(entry, trust), demonstration_trust(trust))
    if os.path.isdir(source):
        return ChosenPolicy(load_policy(source, nfe, trust=trust, allow_unsigned=allow_unsigned), trust)
    if not os.path.lexists(source):
        raise ArtifactError(
            f"{source}: no such file or folder, and no model of that name",
            remedy="check the path; `budc models` lists the models and the policies that come with them",
        )
    if nfe is not None:
        raise UsageError(f"--nfe: {source} is a single policy", remedy="leave out --nfe")
    return ChosenPolicy(open_trusted(Path(source), trust, allow_unsigned=allow_unsigned), trust)
