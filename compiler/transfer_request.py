"""What the user asks of a transfer.

plan = TransferRequest(source=open_artifact(path, trust), to="wan2.1-mini").resolve()
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from budc.compiler.cluster import Cluster
from budc.compiler.compatibility import check_family, check_sampling
from budc.compiler.selection.effort import DEFAULT_EFFORT, effort
from budc.compiler.target import ArtifactRequest, Target
from budc.policies.model_choice import choose_model
from budc.policies.profile import ModelProfile
from budc.runtimes.admission.additions import TRANSFER, check_additions
from budc.schema.artifact import SUFFIX, Artifact
from budc.schema.errors import UsageError
from budc.schema.files import check_place
from budc.schema.signers import Signer


@dataclass(frozen=True, kw_only=True)
class TransferPlan:
    """What a transfer does; the choices are those of the request."""

    source: Artifact
    target: Target
    name: str
    path: Path
    frozen: bool
    nearby: bool
    native: bool
    differing: bool
    effort: str
    seed: int
    revision: int
    signer: Signer | None
    cluster: Cluster | None = None
    """The Ray cluster whose workers compute; None for this process alone."""
    batch: int = 1
    """How many candidates a search proposes at a time, and pieces that a prompt set is cut into at least."""


class TransferRequest(ArtifactRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One transfer of the policy in `source` to the model `to`."""

    source: Artifact
    to: str
    frozen: bool = False
    """Keep the coefficients as they are."""
    effort: str = DEFAULT_EFFORT
    """How many prompts coefficients are fitted and masks tried on, see `budc.compiler.selection.effort`."""
    nearby: bool = False
    """Try masks near the policy's own on the target, too."""
    native: bool = False
    """Search on the target as well, for comparison."""
    differing: bool = False
    """Accept another family, number of steps, scheduler or guidance."""

    def resolve(self) -> TransferPlan:
        """Return the plan of this transfer, with everything refused that can be without loading the target.

        Weights that `download` asks for are fetched here, last.

        Raises:
            UsageError: unknown model, choices that exclude each other, a number out of range, a name that an
                artifact cannot have, or prompts that cannot be used.
            KeyUnusable, OutputError, WeightsMissing: key, output path, weights.
            UnsupportedVersion: the policy uses what cannot be carried over.
            UnsupportedModel: the compiler does not know the target's pipeline, or the policy cannot be carried over.
            CalibrationMismatch: the target is deployed with other steps, guidance or scheduler.
        """
        self.check_numbers()
        cluster = self.cluster()
        profile = choose_model(self.to, "--to")
        document = self.source.document
        profile = replace(self, negative=self._negative(profile)).deployed(profile)
        self._check_nearby()
        check_additions(document, TRANSFER)
        check_family(document, profile, self.differing)
        check_sampling(document, profile, self.differing)
        self.check_name()
        name = self.name or f"{profile.name}-nfe{document.budget.nfe}"
        signer = self.signer()
        path = self.out or Path(f"{name}{SUFFIX}")
        check_place(path)
        adapters = self.adapters(profile)
        samples = self.samples(profile, effort(self.effort).report)
        return TransferPlan(
            source=self.source,
            target=self.target(profile, samples, adapters),
            name=name,
            path=path,
            frozen=self.frozen,
            nearby=self.nearby,
            native=self.native,
            differing=self.differing,
            effort=self.effort,
            seed=self.seed,
            revision=self.revision,
            signer=signer,
            cluster=cluster,
            batch=self.at_a_time(),
        )

    def _negative(self, profile: ModelProfile) -> str | None:
        """Return the user's negative prompt, else the policy's; None where the target's own is to stand."""
        source = self.source.document.sampler.negative_prompt
        if self.negative is None and source is not None and profile.guidance_rule == "classifier-free":
            return source.text
        return self.negative

    def _check_nearby(self) -> None:
        if self.nearby and self.frozen:
            raise UsageError(
                "--nearby fits coefficients, --frozen keeps them", remedy="leave one of them out"
            )
        branches = self.source.document.policy.branches
        if self.nearby and len({branch.step_mask() for branch in branches}) > 1:
            raise UsageError(
                "--nearby: the policy's guidance branches have masks of their own",
                remedy="leave it out: the masks then stay, and coefficients are fitted",
            )
