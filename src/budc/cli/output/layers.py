"""The layers that `budc verify` checks: a line for each below what the policy is worth, or collected for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact


@dataclass
class Layers:
    """What passed so far, for one artifact.

    A context: at its end the lines are printed, also where a layer was refused, so that one sees how far the file came.
    The stages of long checks are shown on stderr meanwhile.
    """

    as_json: bool
    records: list[dict[str, str]] = field(default_factory=list)
    _lines: list[str] = field(default_factory=list)
    _worth: str = ""

    def __enter__(self) -> Layers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        text = "\n\n".join(filter(None, (self._worth, "\n".join(self._lines))))
        if text and not self.as_json:
            click.echo(text)

    def passed(self, layer: str, detail: str) -> None:
        """Note a layer that passed."""
        self.records.append({"layer": layer, "detail": detail})
        self._lines.append(f"ok  {layer:<10}  {detail}")

    def unchecked(self, layer: str, detail: str) -> None:
        """Note a layer that is not checked, and why."""
        self._lines.append(f"--  {layer:<10}  {detail}")

    def passed_all(self, worth: str) -> None:
        """Say above all lines what the policy is worth by its report, which is now known to be its publisher's."""
        self._worth = worth


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
