"""What the user asks of a compile, field by field, and the plan that it becomes.

plan = make_request(read_source(path), flags).resolve()     # see `budc.compiler.policy_source`
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from budc.compiler.asked_budget import parse_quality, parse_seconds, suffix_of
from budc.compiler.budget import parse_budget
from budc.compiler.compile_plan import CompilePlan, PlannedPolicy, plan_policies
from budc.compiler.engine import search_for
from budc.compiler.given_mask import parse_mask
from budc.compiler.models.fit import check_fit, folder_grid
from budc.compiler.proxy import check_grid
from budc.compiler.search_request import SearchRequest
from budc.compiler.selection.stages import check_arbitrated
from budc.compiler.shapes import OutputSize, parse_sizes
from budc.compiler.storage.shard import Shard, parse_shard
from budc.compiler.target import Target
from budc.option_names import option
from budc.policies.model_choice import choose_model
from budc.policies.profile import ModelProfile
from budc.policies.prompt_sets import SampleSets
from budc.schema.bounds import Bound
from budc.schema.errors import UsageError
from budc.schema.files import check_place
from budc.schema.mask import StepMask


class CompileRequest(SearchRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One compile. Fields left `None` take the model profile's value."""

    model: str
    budget: str = ""
    sweep: str | None = None
    """Budgets with commas between them: a family of policies that share the reference run and the rollouts."""
    quality: str | None = None
    """A bound, `psnr>=30`, in place of a budget: the smallest one that keeps it."""
    worst: bool = False
    """Whether the bound is one of the worst prompt."""
    within: str | None = None
    """Seconds of a denoising loop, in place of a budget: the largest one that takes no longer on this device."""
    steps: int | Literal["auto"] | None = None
    """A number of steps, or "auto": the profile's or as many as the budget, whichever other prompts prefer."""
    shape: tuple[str, ...] = ()
    """Sizes of output, as `parse_sizes` reads them: searched on the first, fitted to and measured on each."""
    shard: str | None = None
    """A part of the reference runs to be made in `out`, as `parse_shard` reads it, in place of an artifact."""
    merge: Path | None = None
    """Folder in which all jobs have made theirs."""
    trace: Path | None = None
    """Where to write what the search scored, see `budc.compiler.selection.trace`."""

    def resolve(self) -> CompilePlan:
        """Return the plan of this compile, with everything refused that can be without loading the model.

        Weights that `download` asks for are fetched here, last.

        Raises:
            UsageError: unknown model or search, a number out of range, a name that an artifact cannot have, masks
                that the model's pipeline cannot follow, or prompts that cannot be used.
            BudgetImpossible: see `parse_budget`.
            KeyUnusable, OutputError, UnsupportedModel, WeightsMissing: key, output path, pipeline, weights.
        """
        self.check_numbers()
        shard, cluster = self._shard(), self.cluster()
        auto_steps = self.steps == "auto"
        profile = self.deployed(choose_model(self.model))
        sizes = self._sizes(profile)
        profile = sizes[0].of(profile)
        search, train, quality = self._search(), self._train(), self._quality()
        within = None if self.within is None else parse_seconds(self.within)
        judged = quality is not None
        check_arbitrated(search, align=self.align, auto_steps=auto_steps, train=train, quality=judged)
        steps = self.steps if isinstance(self.steps, int) else profile.steps
        lpips = self._lpips(search, train, profile)
        mask = None if self.mask is None else parse_mask(self.mask, steps)
        budgets = self._budgets(profile, steps, mask, quality)
        engine = self._engine(profile, steps, budgets, mask, len(self.shape))
        search = search_for(engine, search)
        self._check_branches(profile)
        proxy = self._proxy(profile, search, engine)
        self.check_name()
        signer = self.signer()
        policies = self._policies(profile, budgets, suffix_of(quality, within))
        samples = self._samples(profile, search, max(budgets), arbitrates=self.align or auto_steps or judged)
        target = self._target(profile, samples, sizes[1:], proxy)
        return CompilePlan(
            target=target,
            further_sizes=sizes[1:],
            policies=policies,
            steps=steps,
            auto_steps=auto_steps,
            quality=quality,
            within=within,
            search=search,
            mask=mask,
            proxy=proxy,
            effort=self.effort,
            align=self.align,
            train=train,
            lpips=lpips,
            engine=engine,
            separate=self.branches == "separate",
            shard=shard,
            merge=self.merge,
            cluster=cluster,
            batch=self.at_a_time(),
            seed=self.seed,
            revision=self.revision,
            signer=signer,
            trace=self.trace,
        )

    def _shard(self) -> Shard | None:
        """Return the part of the reference runs that is to be made, None where an artifact is."""
        if self.merge is not None and not self.merge.is_dir():
            raise UsageError(
                f"{option('merge')}: {self.merge} is not a folder", remedy="name the folder of --shard"
            )
        if self.shard is None:
            return None
        if self.ray is not None:
            raise UsageError(
                f"{option('shard')}: {option('ray')} shares the work itself", remedy="leave out one of them"
            )
        if self.merge is not None:
            raise UsageError(
                f"{option('shard')}: {option('merge')} goes on from all shards",
                remedy="leave out one of them",
            )
        if self.out is None:
            raise UsageError(
                f"{option('shard')}: no folder is given for all shards",
                remedy="--out FOLDER, the same for every job",
            )
        return parse_shard(self.shard)

    def _target(
        self,
        profile: ModelProfile,
        samples: SampleSets,
        further: tuple[OutputSize, ...],
        proxy: OutputSize | None,
    ) -> Target:
        """Return the target, whose model fits the other sizes as well."""
        target = self.target(profile, samples, self.adapters(profile))
        for size in further:
            check_fit(size.of(profile), target.folder)
        if proxy is not None:
            check_grid(proxy, folder_grid(profile, target.folder), profile.name)
        return target

    def _sizes(self, profile: ModelProfile) -> tuple[OutputSize, ...]:
        """Return the sizes that the policy is to be for, the one to search on first."""
        if not self.shape:
            return (OutputSize(profile.height, profile.width, profile.frames),)
        for name in ("height", "width", "frames"):
            if getattr(self, name) is not None:
                raise UsageError(
                    f"{option(name)}: {option('shape')} says this too", remedy="leave out one of them"
                )
        return parse_sizes(self.shape, profile)

    def _check_trace(self, policies: tuple[PlannedPolicy, ...]) -> None:
        """Refuse a trace that cannot be written, or would replace an artifact."""
        if self.trace is None:
            return
        check_place(self.trace, option("trace"))
        if self.trace.resolve() in {planned.path.resolve() for planned in policies}:
            raise UsageError(
                f"{option('trace')}: {self.trace} is where the artifact goes", remedy="name another file"
            )

    def _quality(self) -> Bound | None:
        if self.quality is None:
            if self.worst:
                raise UsageError(
                    f"{option('worst')}: says of which prompt --quality is", remedy="add --quality psnr>=25"
                )
            return None
        return parse_quality(self.quality, worst=self.worst, frames=not self.no_frames)

    def _budgets(
        self, profile: ModelProfile, steps: int, mask: StepMask | None, quality: Bound | None
    ) -> dict[int, str]:
        """Return NFE -> budget as the user wrote it."""
        asked = self.within if quality is None else str(quality)
        if asked is not None:
            # Every step, until it is known how many are enough.
            return {steps: asked.strip()}
        requested = self.sweep.split(",") if self.sweep is not None else [self.budget]
        if mask is not None and not self.budget:
            requested = [str(mask.nfe)]
        source, denoisers = "budget" if self.sweep is None else "sweep", len(profile.denoisers)
        budgets = {parse_budget(text, steps, denoisers, source=source): text.strip() for text in requested}
        if mask is not None and mask.nfe not in budgets:
            raise UsageError(
                f"{option('mask')}: computes {mask.nfe} steps, but {option('budget', self.budget)} asks for "
                f"{min(budgets)}",
                remedy=f"leave out {option('budget')}, or give a mask of that many",
            )
        return budgets

    def _policies(
        self, profile: ModelProfile, budgets: dict[int, str], suffix: str | None
    ) -> tuple[PlannedPolicy, ...]:
        names = {nfe: f"{self.name or profile.name}-{suffix or f'nfe{nfe}'}" for nfe in budgets}
        if self.sweep is None and self.name is not None:
            names = dict.fromkeys(budgets, self.name)
        several = self.sweep is not None or self.shard is not None
        policies = plan_policies(budgets, names, self.out, sweep=several)
        self._check_trace(policies)
        return policies
