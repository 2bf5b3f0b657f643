"""Bind: a policy is taken over to a converted model, after both forms were seen to make the same.

parity = measure_parity(model, document, converted, samples=4)
check_parity(parity, "float32")
document = rebound(artifact, variant, parity)
"""

from __future__ import annotations

import msgspec

from budc.compiler.evaluation.parity import Parity
from budc.schema.artifact import Artifact
from budc.schema.policy import PolicyDocument, Variant
from budc.schema.timestamps import issue_time


def rebound(
    artifact: Artifact, variant: Variant, parity: Parity, revision: int | None = None
) -> PolicyDocument:
    """Return the policy of `artifact` with one variant more, derived from it.

    A variant of the same name is replaced. `revision` is by default the next one, so that trust files can ask for it.
    What was measured is noted under `annotations`; the quality report stays that of the original.
    """
    document = artifact.document
    others = [other for other in document.model.variants if other.name != variant.name]
    return msgspec.structs.replace(
        document,
        model=msgspec.structs.replace(document.model, variants=[*others, variant]),
        revision=document.revision + 1 if revision is None else revision,
        issued_at=issue_time(),
        derived_from=artifact.policy_id,
        annotations={**document.annotations, f"parity.{variant.name}": str(parity)},
    )
