"""From a task to its best policy, on tensors alone.

- The reference run of as many calibration prompts as the effort takes: states, and Gram matrices of what was computed.
- The search, on the first of them, or on one group of them after the other.
- Race: the best finalists on all prompts that are fitted, and moves of the winner's steps.
- Arbitration, where prompts are left to judge by: finalists on prompts that nothing was fitted on.
- Refinement: the winner's coefficients moved at once by what they do to final latents, on some of the fitted prompts,
  and kept where the judges, or all that are fitted, lose less.
- Alignment, where it is asked for: coefficients and sigmas trained by gradient on the fitted prompts, each paired with
  several noises, and kept where the judges, paired as well, lose less with them.
- Where neither is kept, the winner's coefficients are fitted once more, on judges and all.

Reference searches (`Algorithm.arbitrated` is false) are given all prompts, as their authors do. The paper's may be
followed by its second stage: sigmas trained on the same prompts, and judged by none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from budc.compiler.rollouts.candidate import candidate_of
from budc.compiler.search import Candidate, Space, algorithm
from budc.compiler.selection.arbitration import Contender
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.effort import effort
from budc.compiler.selection.judges import Judges
from budc.compiler.selection.race import RaceResult, race
from budc.compiler.selection.scores import Scored
from budc.compiler.selection.settings import settings_of
from budc.compiler.selection.space import space_of
from budc.compiler.selection.study import search
from budc.compiler.selection.task import ForwardCount, SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.compiler.training.losses import squared_error
from budc.compiler.training.schedule_alignment import align_schedule, training_settings
from budc.schema.errors import CompileError
from budc.schema.policy import Policy


@dataclass(frozen=True)
class Finder:
    """Finds policies of several budgets on one set of calibration prompts, which share its reference run and trees.

    The task of the calibration decides how many prompts all are given, so its budget is the largest.

    Raises:
        BudcError: see `study.search`.
    """

    calibration: Calibration

    @property
    def task(self) -> Task:
        """The task of the calibration."""
        return self.calibration.task

    @property
    def journal(self) -> Journal:
        """The journal of all that is measured."""
        return self.calibration.journal

    def find(self, task: Task) -> SearchResult:
        """Return the best policy for a task that differs from the first in budget and search alone."""
        calibration = self.calibration
        stages = calibration.stages.of(task.search)
        space = space_of(task, calibration.run.part(0, stages.fit), stages)
        study = search(task.search, space, calibration.forest(*stages.spans), self.journal, task.seed)
        finalists, notes = study.finalists, tuple[str, ...]()
        forwards = ForwardCount(reference=calibration.reference_forwards, search=study.forwards)
        if stages.races:
            raced = self._raced(task, space, finalists)
            finalists, notes = raced.ranking, (raced.note,)
            forwards += ForwardCount(race=raced.forwards)
        best = finalists[0]
        result = SearchResult(best.policy, task.schedule, best.loss, study.candidates, forwards, notes=notes)
        if stages.judge:
            result = Judges(calibration, task).best(finalists, result)
        elif task.align:
            result = self._schedule_aligned(task, result)
        else:
            result = self.refined(task, best.candidate, result)
        return replace(result, settings=settings_of(task, stages, result), trace=study.trace)

    def transferred(self, policy: Policy) -> SearchResult:
        """Return a policy of another network with its masks kept, and with coefficients for this one: its own or fitted
        ones, whichever lose less, refined.

        Raises:
            CompileError: final latents are not finite with either.
        """
        candidate = candidate_of(policy, self.task.denoiser.branches)
        fit = self.calibration.refitted(policy)
        if not math.isfinite(fit.loss):
            raise CompileError(
                f"candidate {candidate.key}: the final latents are not finite",
                remedy="compile a policy for this model",
            )
        forwards = ForwardCount(reference=self.calibration.reference_forwards, refit=fit.forwards)
        own, prompts = fit.policy is policy, self.calibration.stages.total
        kept, other = ("its own coefficients", "fitted ones") if own else ("fitted coefficients", "its own")
        note = f"{kept}, which lose less on {prompts} prompts than {other}"
        result = SearchResult(fit.policy, self.task.schedule, fit.loss, 1, forwards, notes=(note,))
        return self.refined(self.task, candidate, result, "as given" if own else None)

    def refined(
        self, task: Task, candidate: Candidate, result: SearchResult, origin: str | None = None
    ) -> SearchResult:
        """Return a result whose loss is that on all prompts, with refined coefficients where these lose less there.

        Without `origin` its coefficients are those that were fitted on all prompts.
        """
        calibration = self.calibration
        contender, spent = calibration.refined(
            task,
            candidate,
            Contender(result.loss, result),
            calibration.everyone(),
            origin or f"of {calibration.stages.total}",
        )
        return replace(contender.result, loss=contender.loss, forwards=result.forwards + spent)

    def _raced(self, task: Task, space: Space, finalists: Sequence[Scored]) -> RaceResult:
        """Let the best finalists of the search race, and move the steps of the best."""
        most = effort(task.effort).finalists
        candidates = [scored.candidate for scored in finalists[:most]]
        objective = algorithm(task.search).objective
        forest = self.calibration.forest((0, self.calibration.stages.fit))
        return race(task.search, space, candidates, objective, forest, self.journal)

    def _schedule_aligned(self, task: Task, result: SearchResult) -> SearchResult:
        """Return the policy of a search on its aligned schedule."""
        prompts, by = self.calibration.stages.fit, f"by {task.frame_loss.name} " if task.frame_loss else ""
        training_set, branches = self.calibration.samples(0, prompts), len(task.denoiser.branches)
        schedule, training = align_schedule(
            task.denoiser,
            result.policy,
            task.schedule,
            training_set,
            training_settings(branches, prompts, task.seed, task.frame_loss or squared_error),
            self.journal,
            f"align {task.search} {task.nfe} schedule",
        )
        return replace(
            result,
            schedule=schedule,
            aligned=True,
            forwards=result.forwards + ForwardCount(alignment=training.forwards),
            notes=(*result.notes, f"sigmas trained {by}on {prompts} prompts, and judged by no others"),
        )
