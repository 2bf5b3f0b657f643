"""The layers that `budc verify` checks, printed one by one as they pass, or collected for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact


@dataclass
class Layers:
    """What passed so far, for one artifact."""

    as_json: bool
    records: list[dict[str, str]] = field(default_factory=list)

    def passed(self, layer: str, detail: str) -> None:
        """Note a layer that passed; as text it is printed at once, so that a refusal comes below it."""
        self.records.append({"layer": layer, "detail": detail})
        if not self.as_json:
            click.echo(f"ok  {layer:<9}  {detail}")

    def unchecked(self, layer: str, detail: str) -> None:
        """Print a layer that is not checked, and why."""
        if not self.as_json:
            click.echo(f"--  {layer:<9}  {detail}")

    def passed_all(self, sentence: str) -> None:
        """Print what the policy is worth by its report, which is now known to be its publisher's."""
        if not self.as_json:
            click.echo(f"\n{sentence}")


def record(artifact: Artifact, variant: str | None, layers: Layers, sentence: str) -> dict[str, object]:
    """Return what was verified as one JSON object."""
    return {
        "verified": True,
        "policyId": artifact.policy_id,
        "name": artifact.document.name,
        "revision": artifact.document.revision,
        "signedBy": [key.fingerprint for key in artifact.verified_by],
        "variant": variant,
        "layers": layers.records,
        "verdict": sentence,
    }
