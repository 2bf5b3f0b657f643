"""The budget of a compile, where a quality or a time decides on it: what is measured on the model itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor

from budc.compiler.compile_plan import CompilePlan
from budc.compiler.compile_task import recorded_for
from budc.compiler.compile_work import JUDGES_FRAMES, first_bracket, work_from
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.report import frame_levels
from budc.compiler.loaded_target import LoadedTarget
from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.task import SearchResult
from budc.compiler.settled_budget import Settled, Tell, budget_for_quality, budget_within, timed_loop
from budc.compiler.storage.journal import Journal
from budc.progress.remaining_work import RemainingWork
from budc.runtimes.sampling.devices import device_name
from budc.schema.evaluation import Latency
from budc.schema.mask import StepMask
from budc.schema.policy import Payload, Policy, SamplerBinding
from budc.schema.predictor import Predictor
from budc.schema.report_names import PSNR


class CompileBudget:
    """Settles the budget that a plan leaves open, and keeps the work that is left up to date with what is known of it.

    A time needs no search, so it comes before the reference run, which then is of as many prompts as the budget takes.
    """

    def __init__(
        self, loaded: LoadedTarget, sampler: SamplerBinding, journal: Journal, work: RemainingWork
    ) -> None:
        self._loaded, self._sampler, self._journal, self._work = loaded, sampler, journal, work

    def within(self, plan: CompilePlan) -> Settled | None:
        """Return the budget that a time leads to; None where none is asked for. Raises as `budget_within` does."""
        if plan.within is None:
            return None
        device = device_name(self._loaded.model.device)
        timed = partial(self._loop_seconds, *recorded_for(plan.engine))
        return budget_within(plan.within, timed, device, first_bracket(plan), self._tell(plan))

    def with_quality(
        self, plan: CompilePlan, finder: Finder, find: Callable[[int], SearchResult]
    ) -> Settled | None:
        """Return the budget that a quality leads to; None where none is asked for. `find` searches at one budget.

        Raises as `budget_for_quality` does.
        """
        if plan.quality is None:
            return None
        frames = plan.quality.metric == PSNR

        def measure(nfe: int, latents: Tensor, reference: Tensor) -> list[float]:
            if not frames:
                return latent_errors(latents, reference)
            model, label = self._loaded.model, f"quality {nfe}"
            levels = frame_levels(model, {nfe: latents}, reference, self._journal, label, shown=JUDGES_FRAMES)
            return levels[nfe]

        return budget_for_quality(plan.quality, finder, find, measure, first_bracket(plan), self._tell(plan))

    def _tell(self, plan: CompilePlan) -> Tell:
        return lambda bracket: self._work.expect(work_from(plan, bracket))

    def _loop_seconds(self, payload: Payload, first_blocks: int, nfe: int) -> Latency:
        """Return what a loop of one sample with a uniform mask takes; `first_blocks` run at reused steps too."""
        model, sampler = self._loaded.model, self._sampler
        mask = StepMask.uniform(sampler.steps, nfe).through(sampler.first_steps)
        policy = Policy.of(payload, dict.fromkeys(model.profile.branches, Predictor.plain_reuse(mask)))
        rollout = PipelineRollout(model, batch=1, first_blocks=first_blocks)

        def loop() -> Tensor:
            return rollout.run(policy, sampler, self._loaded.conditions.held_out.part(0, 1))

        return timed_loop(nfe, loop, model.device, self._journal)


def settled_plan(plan: CompilePlan, settled: Settled | None) -> CompilePlan:
    """Return the plan with the budget that was found, if one was."""
    if settled is None:
        return plan
    return replace(plan, policies=(replace(plan.policies[0], nfe=settled.nfe),))
