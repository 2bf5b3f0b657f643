"""Judges: what is chosen by prompts that nothing was fitted on.

- A finalist: the one that loses least there.
- Its refined coefficients, where they lose less.
- Its alignment, or as many plain steps, where these are asked for and lose less. Where an
  alignment is asked for, all are measured on several noises of each prompt.
- Where neither a refinement nor anything after it was kept, coefficients are fitted once more, on judges and all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from budc.compiler.selection.alignment import align
from budc.compiler.selection.arbitration import Arbiter, Contender, few_steps
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.effort import effort
from budc.compiler.selection.scores import Scored
from budc.compiler.selection.task import ForwardCount, SearchResult, Task
from budc.progress import progress
from budc.runtimes.sampling.rules import FIXED_RULES
from budc.schema.policy import Policy


@dataclass(frozen=True)
class Judges:
    """What chooses for a task, by the prompts of `calibration` that judge."""

    calibration: Calibration
    task: Task

    def best(self, finalists: Sequence[Scored], result: SearchResult) -> SearchResult:
        """Return what the judges prefer; `result` is what is taken without them."""
        task, stages = self.task, self.calibration.stages
        arbiter = self.calibration.arbiter(paired=task.align)
        losses = self._losses(finalists, arbiter)
        index = losses.index(min(losses))
        winner = finalists[index]
        chosen = f"finalist {index + 1} of {len(losses)} by arbitration on {stages.judge} other prompts"
        forwards = result.forwards + ForwardCount(arbitration=arbiter.spent())
        result = replace(result, policy=winner.policy, loss=winner.loss, notes=(*result.notes, chosen))
        contender, spent = self.calibration.refined(
            task, winner.candidate, Contender(losses[index], result), arbiter, f"of {stages.fit}"
        )
        forwards += spent
        notes = list(contender.result.notes)
        contenders = [contender, *few_steps(task, arbiter)]
        if task.align:
            contenders, spent = self._aligned(contenders, arbiter)
            forwards += spent
        best = min(contenders, key=lambda contender: contender.loss).result
        if best.policy is winner.policy and winner.candidate.rule not in FIXED_RULES:
            policy, spent = self._refitted(winner, arbiter)
            forwards += spent
            if policy is not None:
                best = replace(best, policy=policy, judged=best.policy)
                notes.append(f"coefficients fitted again on all {stages.total} prompts")
        if len(contenders) > 1:
            notes.append(f"{best.schedule.steps} steps by arbitration")
        if task.align:
            notes.append("alignment kept" if best.aligned else "alignment gained nothing on other prompts")
        forwards += ForwardCount(arbitration=arbiter.spent())
        return replace(best, candidates=result.candidates, forwards=forwards, notes=tuple(notes))

    def _losses(self, finalists: Sequence[Scored], arbiter: Arbiter) -> list[float]:
        """Return what each finalist loses."""
        task, workers, form = self.task, self.calibration.workers, self.calibration.form
        losses = []
        with progress(f"arbitration on {self.calibration.stages.judge} prompts", len(finalists)) as bar:
            if workers is not None and not task.align:
                policies = {task.label(scored.candidate): scored.policy for scored in finalists}
                arbiter.measure_elsewhere(policies, workers.arbitrate)
            for scored in finalists:
                losses.append(arbiter.loss(task.label(scored.candidate), scored.policy, form))
                bar.advance()
        return losses

    def _aligned(
        self, contenders: Sequence[Contender], arbiter: Arbiter
    ) -> tuple[list[Contender], ForwardCount]:
        """Return every contender before or after its alignment, whichever is better, and the forwards spent."""
        task, calibration = self.task, self.calibration
        training_set = calibration.samples(0, calibration.stages.fit, effort(task.effort).pairings)
        further_samples = len(training_set) + len(arbiter.samples) - calibration.stages.total
        paired = further_samples * calibration.form.steps * len(task.denoiser.branches)
        better, trained = [], 0
        for contender in contenders:
            contender, forwards = align(task, contender, training_set, arbiter, calibration.journal)
            better.append(contender)
            trained += forwards
        return better, ForwardCount(alignment=trained, paired=paired)

    def _refitted(self, winner: Scored, arbiter: Arbiter) -> tuple[Policy | None, ForwardCount]:
        """Return the winner with coefficients of all prompts, None where they lose more than those it has."""
        task, calibration, stages = self.task, self.calibration, self.calibration.stages
        fit = calibration.fitted(winner.candidate)
        # An alignment's arbiter has paired samples; the fit is compared on the prompts' own noise.
        unpaired = calibration.arbiter(paired=False) if task.align else arbiter
        loss = unpaired.loss(task.label(winner.candidate), winner.policy, calibration.form)
        before = (winner.loss * stages.fit + loss * stages.judge) / stages.total
        forwards = ForwardCount(refit=fit.forwards, arbitration=unpaired.spent())
        return fit.policy if fit.loss <= before else None, forwards
