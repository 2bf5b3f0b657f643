"""What a bind wrote, as a page of text or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budc.cli.output.tables import fields
from budc.schema.plural import counted
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.compiler.evaluation.parity import Parity
    from budc.schema.artifact import Artifact
    from budc.schema.policy import Variant


def page(artifact: Artifact, variant: Variant, parity: Parity) -> str:
    """Return the new artifact, the variant that it gained and how both forms agree, as a page of text."""
    document = artifact.document
    return fields(
        [
            ("wrote", printable(str(artifact.path))),
            ("policy", f"{artifact.policy_id}, revision {document.revision}"),
            ("derived from", str(document.derived_from)),
            ("variant", f"{variant.name}, {counted(len(variant.files), 'file')}"),
            ("parity", str(parity)),
        ]
    )


def record(artifact: Artifact, variant: Variant, parity: Parity) -> dict[str, object]:
    """Return the same as one JSON object."""
    return {
        "path": str(artifact.path),
        "policyId": artifact.policy_id,
        "revision": artifact.document.revision,
        "derivedFrom": artifact.document.derived_from,
        "signedBy": [signature.keyid for signature in artifact.signatures],
        "variant": variant.name,
        "parity": {
            "samples": len(parity.latents),
            "latents": max(parity.latents),
            "latentsMedian": parity.median,
            "frames": max(parity.frames),
        },
    }
