"""What a generation is asked for: a policy, opened and believed, and what to make with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from budc.cli.output.media import Rows
    from budc.policies.adapter_files import AdapterFile
    from budc.policies.profile import ModelProfile
    from budc.policies.samples import SampleImage
    from budc.schema.artifact import Artifact
    from budc.schema.digest_cache import DigestCache
    from budc.schema.evaluation import EvaluationDocument
    from budc.schema.policy import PolicyDocument
    from budc.schema.trust import Trust


FULL_RUN = "full run"
"""What the full run is called among the methods of a comparison."""


class Finished(NamedTuple):
    """What was generated, as a page of text, and how long its loop took beside the full run's, if that ran."""

    page: str
    speed: str = ""


@dataclass(frozen=True)
class GenerationRequest:
    """One call of `budc run`. Prompt i starts from the noise of `seed + i` and from image i, if the model takes any;
    `weights` is the model's folder.

    `device` is a name of torch's, by default that of the accelerator. Without `out` the file is a new one here, named
    after policy and seed.
    """

    artifact: Artifact
    adapters: tuple[AdapterFile, ...]
    trust: Trust
    allow_unsigned: bool
    allow_uncalibrated: bool
    digests: DigestCache
    profile: ModelProfile
    weights: Path
    prompts: tuple[str, ...]
    images: tuple[SampleImage | None, ...]
    seed: int
    out: Path | None
    device: str | None = None

    @property
    def document(self) -> PolicyDocument:
        """What the artifact says."""
        return self.artifact.document

    def evaluations(self) -> list[EvaluationDocument]:
        """Return the evaluations beside the policy, of evaluators whom the user trusts."""
        from budc.schema.evaluations import find_evaluations

        policy = self.artifact
        if policy.path is None:
            return []
        found = find_evaluations(policy.path, policy.policy_id, policy.document, self.trust)
        return [item.evaluation.document for item in found if item.evaluation is not None]

    def write(self, rows: Rows) -> Path:
        """Write what was generated and return where. Raises OutputError."""
        from budc.cli.output.media import write_media, write_new_media

        if self.out is not None:
            write_media(self.out, rows)
            return self.out
        suffix = ".mp4" if self.document.pipeline().shape.frames > 1 else ".png"
        return write_new_media(Path(), f"{self.document.name}-seed{self.seed}", suffix, rows)
