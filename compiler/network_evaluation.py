"""What was measured of a policy for a network of one's own, and how it is kept: as an evaluation, signed or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from budc.compiler.emit import versions
from budc.compiler.evaluated import Evaluated
from budc.option_names import python_names
from budc.schema.errors import UsageError
from budc.schema.evaluation import (
    EVALUATION_VERSION,
    EvaluationDocument,
    MethodResult,
    NotMeasuredNote,
    SettingResult,
)
from budc.schema.signers import Signer
from budc.schema.timestamps import issue_time


@dataclass(frozen=True)
class NetworkEvaluation:
    """A policy, the full run and rivals on the same samples, with `latent-mse` and the latency of each."""

    policy_name: str
    policy_id: str | None
    """Of the artifact; None for a policy that was not saved."""
    setting: SettingResult
    device: str
    not_measured: Sequence[NotMeasuredNote]
    """Rivals that cannot run with so many evaluations, and why."""

    @property
    def methods(self) -> Mapping[str, MethodResult]:
        """Results by name: "policy", "full" and the rivals'."""
        return {method.name: method for method in self.setting.methods}

    @property
    def document(self) -> EvaluationDocument:
        """The evaluation as a file holds it. Raises UsageError: the policy was not saved, so that it has no id."""
        if self.policy_id is None:
            raise UsageError(
                "policy: it was not saved, so that an evaluation cannot say which one it is of",
                remedy="evaluate what compiled.save(...) returned, or the path of that file",
            )
        return EvaluationDocument(
            schema_version=EVALUATION_VERSION,
            policy=self.policy_id,
            policy_name=self.policy_name,
            issued_at=issue_time(),
            device=self.device,
            versions=versions(),
            settings=[self.setting],
            not_measured=self.not_measured,
        )

    @python_names()
    def save(
        self,
        path: str | PathLike[str],
        *,
        key: str | PathLike[str] | Signer | None = None,
        summary: bool = False,
    ) -> Path:
        """Write the evaluation, and return its path. Arguments are those of `Evaluated.save`.

        Raises:
            UsageError: the policy was not saved.
            BudcError: see `Evaluated.save`.
        """
        return Evaluated(self.document).save(path, key=key, summary=summary)
