"""An evaluation to show: verified where it can be, as it is where nobody vouches for it, refused where it is false."""

import os

from budc.schema.attestation import UNSIGNED_BYTES, Attestation, open_evaluation, read_evaluation
from budc.schema.errors import Unsigned, UntrustedKey
from budc.schema.evaluation_rules import check_policy
from budc.schema.files import read_limited
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust


def open_claimed(
    source: bytes | str | os.PathLike[str], policy_id: str, policy: PolicyDocument, trust: Trust
) -> Attestation:
    """Return an evaluation (bytes or a path) of a policy, to be shown with `doubt`, and not to be relied upon.

    Its `verified_by` is empty where nobody signed it, or nobody who is trusted as an evaluator.

    Args:
        source: the file, signed or not.
        policy_id: the policy that it must be of.
        policy: that policy.
        trust: whose keys are believed as evaluators', and what is denied.

    Raises:
        TrustError: it was changed after a trusted evaluator signed it, or it is denied.
        ArtifactError, WrongPayloadType: what it holds is no valid evaluation.
        NotEvaluated: it is of another policy, or what it calls the calibrated setting is not that of the policy.
    """
    data = source if isinstance(source, bytes) else read_limited(source, UNSIGNED_BYTES)
    try:
        return open_evaluation(data, policy_id, policy, trust)
    except (Unsigned, UntrustedKey):
        attestation = read_evaluation(data)
    trust.check_denied(attestation.digest)
    check_policy(attestation.document, policy_id, policy)
    return attestation


def doubt(attestation: Attestation) -> str:
    """Return why an evaluation from `open_claimed` is not verified; an empty text where it is."""
    if attestation.verified_by:
        return ""
    if not attestation.signatures:
        return "nobody signed it"
    names = (signature.keyid or attestation.hint or "no key" for signature in attestation.signatures)
    return f"no trusted evaluator signed it, the file names {' and '.join(names)}"
