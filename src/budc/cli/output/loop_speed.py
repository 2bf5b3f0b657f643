"""What the evaluations beside an artifact say of its loop's time, also where nobody whom the user trusts signed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budc.cli.output.verdict import measured_speed
from budc.schema.attestation import read_evaluation
from budc.schema.errors import ArtifactTooLarge, BudcError, Unsigned, UntrustedKey
from budc.schema.evaluation_rules import check_policy
from budc.schema.evaluations import find_evaluations

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.evaluations import Found
    from budc.schema.trust import Trust

_NOBODY_VOUCHES = (Unsigned, UntrustedKey, ArtifactTooLarge)
"""Why an evaluation is not believed that may be right; what is too large for a signed one may be an unsigned one."""


def claimed_speed(artifact: Artifact, trust: Trust) -> str:
    """Return how a policy's loop compares with the full run's, by the first evaluation beside it that has times.

    One by a trusted evaluator comes before others. Of another the text says that it is not verified.
    """
    if artifact.path is None:
        return ""
    found = find_evaluations(artifact.path, artifact.policy_id, artifact.document, trust)
    believed = (measured_speed(item.evaluation.document) for item in found if item.evaluation is not None)
    claimed = (_claim(artifact, item) for item in found if isinstance(item.refusal, _NOBODY_VOUCHES))
    return next(filter(None, believed), "") or next(filter(None, claimed), "")


def _claim(artifact: Artifact, item: Found) -> str:
    try:
        document = read_evaluation(item.path).document
        check_policy(document, artifact.policy_id, artifact.document)
    except BudcError:
        return ""
    speed = measured_speed(document)
    return f"{speed}, says {item.path.name}, which is not verified" if speed else ""
