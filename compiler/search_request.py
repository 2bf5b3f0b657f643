"""What the user asks of a search: algorithm, number of prompts, what it may find, and for which engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from budc.compiler.asked_loss import Loss, by_lpips, lpips_folder
from budc.compiler.engine import Wishes, check_engine, engine_named
from budc.compiler.proxy import check_searched, parse_proxy
from budc.compiler.search import GIVEN, GIVEN_FITTED
from budc.compiler.selection.effort import DEFAULT_EFFORT, effort
from budc.compiler.selection.stages import Trained, stages_of
from budc.compiler.shapes import OutputSize
from budc.compiler.target import ArtifactRequest
from budc.option_names import option
from budc.policies.profile import ModelProfile
from budc.policies.prompt_sets import SampleSets
from budc.runtimes.sampling.families import FAMILIES
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.errors import UsageError
from budc.schema.mask import StepMask


class SearchRequest(ArtifactRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be searched, and how. Its methods refuse with a `UsageError` what does not fit together."""

    engine: str | None = None
    """The engine that the policy is for (`--for`), one of `budc.runtimes.targets.registry`; default budc's runtimes."""
    search: str = "joint"
    effort: str = DEFAULT_EFFORT
    """How many prompts the search is given, see `budc.compiler.selection.effort`."""
    align: bool = False
    train: Trained | None = None
    """What `align` trains; default both. The paper's search takes sigmas alone, its second stage."""
    loss: Loss | None = None
    """What the paper's second stage minimises; default latents."""
    metric_weights: Path | None = None
    """Folder of folders of weights, of which `loss` takes that of LPIPS."""
    branches: Literal["together", "separate"] = "together"
    mask: str | None = None
    """A mask to make a policy of, in place of a search, as `parse_mask` reads it."""
    fit: bool = False
    """Fit coefficients to the mask; otherwise the newest cached tensor is reused unchanged."""
    proxy: str | None = None
    """A smaller size of output to search masks at, as `parse_proxy` reads it."""

    def _search(self) -> str:
        """Return the algorithm, which a mask of the user's stands in for."""
        if self.mask is not None:
            return GIVEN_FITTED if self.fit else GIVEN
        if self.fit or self.search in (GIVEN, GIVEN_FITTED):
            raise UsageError(
                f"{option('fit')}: no mask is given to fit coefficients to"
                if self.fit
                else f"{option('search', self.search)}: no mask",
                remedy="--mask MASK",
            )
        self._check_batch()
        return self.search

    def _train(self) -> Trained:
        """Return what an alignment trains."""
        if self.train is not None and not self.align:
            raise UsageError(
                f"{option('train')}: says what --align trains", remedy="add --align, or leave it out"
            )
        return self.train or "both"

    def _lpips(self, search: str, train: Trained, profile: ModelProfile) -> Path | None:
        """Return the folder of LPIPS's weights where it is the loss."""
        wanted = by_lpips(
            self.loss,
            second_stage=search == "paper" and self.align and train == "sigmas",
            size=(profile.height, profile.width),
            frames=not self.no_frames,
        )
        return lpips_folder(self.metric_weights, wanted=wanted)

    def _engine(
        self, profile: ModelProfile, steps: int, budgets: Collection[int], mask: StepMask | None, sizes: int
    ) -> DeploymentTarget | None:
        """Return the engine that the policy of so many sizes is for, None for budc's own runtimes."""
        if self.engine is None:
            return None
        engine = engine_named(self.engine, profile)
        wishes = Wishes(
            search=self.search,
            mask=mask,
            separate=self.branches == "separate",
            fit=self.fit,
            align=self.align,
            train=self._train(),
            sizes=sizes,
        )
        check_engine(engine, steps, budgets, wishes)
        return engine

    def _proxy(
        self, profile: ModelProfile, search: str, engine: DeploymentTarget | None
    ) -> OutputSize | None:
        """Return the size at which masks are searched first, None where that is the real one."""
        if self.proxy is None:
            return None
        few_masks = engine is not None and engine.masks is not None
        check_searched(search, separate=self.branches == "separate", few_masks=few_masks)
        return parse_proxy(self.proxy, profile)

    def _check_batch(self) -> None:
        """Refuse a batch of a search that proposes as it must."""
        if self.batch is not None and self.batch > 1 and self.search != "joint":
            raise UsageError(
                f"{option('batch')}: {option('search', self.search)} proposes candidates in its own way",
                remedy=f"leave it out, or use {option('search', 'joint')}",
            )

    def _check_branches(self, profile: ModelProfile) -> None:
        kinds = profile.denoisers.values()
        if self.branches == "separate" and any(kind in FAMILIES and FAMILIES[kind].batched for kind in kinds):
            raise UsageError(
                f"{option('branches', 'separate')}: {profile.pipeline_class} runs its branches in one forward, "
                "which is computed or reused as a whole",
                remedy="leave it out: the branches then share a mask, with coefficients of their own",
            )

    def _samples(self, profile: ModelProfile, search: str, nfe: int, *, arbitrates: bool) -> SampleSets:
        """Return both prompt sets, with prompts left to judge by where something is arbitrated."""
        samples = self.samples(profile, effort(self.effort).report)
        stages_of(search, self.effort, nfe, len(samples.calibration), arbitrates=arbitrates)
        return samples
