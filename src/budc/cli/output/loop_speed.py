"""What evaluations say of the time of a policy's loop, also where nobody whom the user trusts signed one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from budc.cli.output.verdict import measured_speed
from budc.schema.claimed_evaluation import open_claimed
from budc.schema.errors import BudcError
from budc.schema.evaluations import find_evaluations

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.attestation import Attestation
    from budc.schema.trust import Trust


def claimed_speed(artifact: Artifact, trust: Trust) -> str:
    """Return how a policy's loop compares with the full run's, by the evaluations beside it; see `first_speed`.

    One that is false, malformed or of another policy says nothing.
    """
    if artifact.path is None:
        return ""
    read = {}
    for item in find_evaluations(artifact.path, artifact.policy_id, artifact.document, trust):
        with suppress(BudcError):
            read[item.path] = item.evaluation or open_claimed(
                item.path, artifact.policy_id, artifact.document, trust
            )
    return first_speed(read)


def first_speed(evaluations: Mapping[Path, Attestation]) -> str:
    """Return how a policy's loop compares with the full run's, by the first evaluation that has times.

    One that is verified comes before others. Of another the text says that it is not verified.
    """
    for path, attestation in sorted(evaluations.items(), key=lambda item: not item[1].verified_by):
        if speed := measured_speed(attestation.document):
            return speed if attestation.verified_by else f"{speed}, says {path.name}, which is not verified"
    return ""
