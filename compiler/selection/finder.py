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

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.experts import check_all_run
from budc.compiler.rollouts.forest import Forest
from budc.compiler.rollouts.metrics import objective
from budc.compiler.rollouts.node_memory import MEMORY
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.reference_run import ReferenceRun, reference_run
from budc.compiler.rollouts.tree import Tree
from budc.compiler.rollouts.workers import PromptSpan, SearchWorkers
from budc.compiler.search import Candidate, Space, algorithm
from budc.compiler.selection.alignment import align
from budc.compiler.selection.arbitration import Arbiter, Contender, few_steps
from budc.compiler.selection.effort import effort
from budc.compiler.selection.network import CALIBRATION_RUN, batched
from budc.compiler.selection.race import RaceResult, race
from budc.compiler.selection.refinement import Refined, Refiner
from budc.compiler.selection.scores import Scored, policy_of
from budc.compiler.selection.settings import settings_of
from budc.compiler.selection.space import space_of
from budc.compiler.selection.stages import Stages, stages_of
from budc.compiler.selection.study import search
from budc.compiler.selection.task import ForwardCount, SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.compiler.training.augmentation import paired_training_set
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.losses import squared_error
from budc.compiler.training.schedule_alignment import align_schedule, training_settings
from budc.progress import progress
from budc.runtimes.sampling.rules import FIXED_RULES
from budc.schema.policy import Policy

FIT_PASS = "fit"
"""What the label of a pass begins with that fits a candidate on all prompts."""


@dataclass(frozen=True)
class Fit:
    """A candidate's policy with coefficients fitted on all prompts, its log loss on them, and the forwards spent.

    The loss is infinite where final latents are not finite.
    """

    policy: Policy
    loss: float
    forwards: int


class Finder:
    """Finds policies of several budgets for one denoiser, which share the reference run and the trees of rollouts.

    The first task's budget decides how many prompts all are given, so it is the largest. Where there are `workers`, the
    reference run, the rollouts of candidates and the arbitration are theirs. `stages` are those of the effort, unless
    they are given.

    Raises:
        UsageError: too few prompts to judge an alignment or a number of steps by, or a schedule on which one of
            several denoisers has no step.
        BudcError: see `study.search` and `BatchedDenoiser`.
    """

    def __init__(
        self,
        task: Task,
        journal: Journal,
        workers: SearchWorkers | None = None,
        stages: Stages | None = None,
    ) -> None:
        check_all_run(task.denoiser, task.schedule.timesteps)
        # What cannot be arbitrated is refused before the reference run, not after it.
        self.stages = stages or stages_of(
            task.search, task.effort, task.nfe, len(task.conditions), arbitrates=task.arbitrates
        )
        self.task = task
        self.journal = journal
        self.workers = workers
        self.form = task.schedule.linear_form()
        prompts = self.stages.chosen(len(task.conditions))
        self.conditions = task.conditions.rows(prompts)
        self._trees: dict[PromptSpan, Tree] = {}
        network = self._batched(self.conditions)
        elsewhere = None if workers is None else workers.reference_chunks
        self.run: ReferenceRun = reference_run(
            network, self.form, journal, CALIBRATION_RUN, task.recorded, elsewhere
        )
        self.reference_forwards = network.forwards
        """What the reference run cost."""

    def find(self, task: Task) -> SearchResult:
        """Return the best policy for a task that differs from the first in budget and search alone."""
        stages = self.stages.of(task.search)
        space = space_of(task, self.run.part(0, stages.fit), stages)
        study = search(task.search, space, self.forest(*stages.spans), self.journal, task.seed)
        finalists, notes = study.finalists, tuple[str, ...]()
        forwards = ForwardCount(reference=self.reference_forwards, search=study.forwards)
        if stages.races:
            raced = self._raced(task, space, finalists)
            finalists, notes = raced.ranking, (raced.note,)
            forwards += ForwardCount(race=raced.forwards)
        best = finalists[0]
        result = SearchResult(best.policy, task.schedule, best.loss, study.candidates, forwards, notes=notes)
        if stages.judge:
            result = self._arbitrated(task, finalists, result)
        elif task.align:
            result = self._schedule_aligned(task, result)
        else:
            result = self.refined(task, best.candidate, result)
        return replace(result, settings=settings_of(task, stages, result), trace=study.trace)

    def judged(self, result: SearchResult) -> tuple[Tensor, Tensor]:
        """Return final latents (N, ...) on the prompts that judge: of what was found, before it was fitted on these as
        well, and of the reference run.
        """
        samples = self._training_set(self.stages.fit, self.stages.total)
        policy = result.policy if result.judged is None else result.judged
        network = self._batched(samples.conditions)
        return rollout_policy(network, result.schedule.linear_form(), policy), samples.latents

    def fitted(self, candidate: Candidate) -> Fit:
        """Fit a candidate's coefficients on all prompts."""
        forest = self.forest((0, self.stages.total))
        with progress(f"{FIT_PASS} on {self.stages.total} prompts", 1) as bar:
            (rollout,) = forest.roll_out([candidate])
            bar.advance()
        policy = policy_of(forest.trees[0], candidate, rollout.rows)
        return Fit(policy, objective("log-mean", rollout.errors), rollout.forwards)

    @property
    def refiner(self) -> Refiner:
        """What refines policies on the prompts of the search."""
        return Refiner(self.form, self.run, self.network, self.journal, self.workers)

    def refined(self, task: Task, candidate: Candidate, result: SearchResult) -> SearchResult:
        """Return a result whose loss is that on all prompts, with refined coefficients where these lose less there."""
        refined = self._refined(task, candidate, result.policy, self.stages.total)
        if refined is None:
            return result
        everyone = Arbiter(self._training_set(0, self.stages.total), self._batched, self.journal)
        contender = refined.chosen(Contender(result.loss, result), everyone, self.form)
        spent = ForwardCount(refinement=refined.forwards + everyone.forwards)
        return replace(contender.result, loss=contender.loss, forwards=result.forwards + spent)

    def _refined(self, task: Task, candidate: Candidate, policy: Policy, fitted: int) -> Refined | None:
        """Return a candidate's policy that was fitted on so many prompts, refined; None where nothing is refined."""
        prompts = effort(task.effort).refined(task.nfe, self.stages.fit)
        fixed = candidate.rule in FIXED_RULES or not algorithm(task.search).arbitrated
        if fixed or not prompts or not task.refine:
            return None
        return self.refiner.refined(f"{_label(task, candidate)} of {fitted}", policy, prompts)

    def _schedule_aligned(self, task: Task, result: SearchResult) -> SearchResult:
        """Return the policy of a search on its aligned schedule."""
        prompts, by = self.stages.fit, f"by {task.frame_loss.name} " if task.frame_loss else ""
        training_set, branches = self._training_set(0, prompts), len(task.denoiser.branches)
        schedule, training = align_schedule(
            task.denoiser,
            result.policy,
            task.schedule,
            training_set,
            training_settings(branches, prompts, task.seed, task.frame_loss or squared_error),
            self.journal,
            f"align {task.search} {task.nfe} sigmas",
        )
        return replace(
            result,
            schedule=schedule,
            aligned=True,
            forwards=result.forwards + ForwardCount(alignment=training.forwards),
            notes=(*result.notes, f"sigmas trained {by}on {prompts} prompts, and judged by no others"),
        )

    def _raced(self, task: Task, space: Space, finalists: Sequence[Scored]) -> RaceResult:
        """Let the best finalists of the search race, and move the steps of the best."""
        most = effort(task.effort).finalists
        candidates = [scored.candidate for scored in finalists[:most]]
        objective = algorithm(task.search).objective
        forest = self.forest((0, self.stages.fit))
        return race(task.search, space, candidates, objective, forest, self.journal)

    def _arbitrated(self, task: Task, finalists: Sequence[Scored], result: SearchResult) -> SearchResult:
        """Return what the judges prefer; `result` is what is taken without them."""
        stages = self.stages
        arbiter = self.arbiter(paired=task.align)
        losses = []
        with progress(f"arbitration on {stages.judge} prompts", len(finalists)) as bar:
            if self.workers is not None and not task.align:
                policies = {_label(task, scored.candidate): scored.policy for scored in finalists}
                arbiter.measure_elsewhere(policies, self.workers.arbitrate)
            for scored in finalists:
                losses.append(arbiter.loss(_label(task, scored.candidate), scored.policy, self.form))
                bar.advance()
        index = losses.index(min(losses))
        winner = finalists[index]
        chosen = f"finalist {index + 1} of {len(losses)} by arbitration on {stages.judge} other prompts"
        notes = (*result.notes, chosen)
        contender = Contender(
            losses[index], replace(result, policy=winner.policy, loss=winner.loss, notes=notes)
        )
        forwards = result.forwards
        if refined := self._refined(task, winner.candidate, winner.policy, stages.fit):
            contender = refined.chosen(contender, arbiter, self.form)
            forwards += ForwardCount(refinement=refined.forwards)
        judged = list(contender.result.notes)
        contenders = [contender, *few_steps(task, arbiter)]
        if task.align:
            contenders, spent = self._aligned(task, contenders, arbiter)
            forwards += spent
        best = min(contenders, key=lambda contender: contender.loss).result
        if best.policy is winner.policy and winner.candidate.rule not in FIXED_RULES:
            policy, spent_on_refit = self._refitted(task, winner, arbiter)
            forwards += spent_on_refit
            if policy is not None:
                best = replace(best, policy=policy, judged=best.policy)
                judged.append(f"coefficients fitted again on all {stages.total} prompts")
        if len(contenders) > 1:
            judged.append(f"{best.schedule.steps} steps by arbitration")
        if task.align:
            judged.append("alignment kept" if best.aligned else "alignment gained nothing on other prompts")
        forwards += ForwardCount(arbitration=arbiter.forwards)
        return replace(best, candidates=result.candidates, forwards=forwards, notes=tuple(judged))

    def _aligned(
        self, task: Task, contenders: Sequence[Contender], arbiter: Arbiter
    ) -> tuple[list[Contender], ForwardCount]:
        """Return every contender before or after its alignment, whichever is better, and the forwards spent."""
        training_set = self._training_set(0, self.stages.fit, effort(task.effort).pairings)
        further_samples = len(training_set) + len(arbiter.samples) - self.stages.total
        paired = further_samples * self.form.steps * len(task.denoiser.branches)
        better, trained = [], 0
        for contender in contenders:
            contender, forwards = align(task, contender, training_set, arbiter, self.journal)
            better.append(contender)
            trained += forwards
        return better, ForwardCount(alignment=trained, paired=paired)

    def _refitted(self, task: Task, winner: Scored, arbiter: Arbiter) -> tuple[Policy | None, ForwardCount]:
        """Return the winner with coefficients of all prompts, None where they lose more than those it has."""
        fit = self.fitted(winner.candidate)
        # An alignment's arbiter has paired samples; the fit is compared on the prompts' own noise.
        unpaired = self.arbiter(paired=False) if task.align else arbiter
        loss = unpaired.loss(_label(task, winner.candidate), winner.policy, self.form)
        stages = self.stages
        before = (winner.loss * stages.fit + loss * stages.judge) / stages.total
        forwards = ForwardCount(
            refit=fit.forwards, arbitration=0 if unpaired is arbiter else unpaired.forwards
        )
        return fit.policy if fit.loss <= before else None, forwards

    def network(self, span: PromptSpan) -> BatchedDenoiser:
        """Return the denoiser on some prompts, with which several rollouts may run at once."""
        return self._batched(self.conditions.part(*span), stack=None)

    def _batched(self, conditions: Conditioning, stack: bool | None = False) -> BatchedDenoiser:
        return batched(self.task, conditions, self.journal, stack)

    def forest(self, *spans: PromptSpan) -> Forest:
        """Return the trees over groups of prompts."""
        return Forest([self.tree(span) for span in spans], spans, self.workers)

    def tree(self, span: PromptSpan) -> Tree:
        """Return the tree over some prompts, one for each span of them; those of all groups share the memory of one."""
        if span not in self._trees:
            memory = MEMORY // (self.stages.groups if span in self.stages.spans else 1)
            self._trees[span] = Tree(
                self.network(span), self.form, self.run.part(*span), self.journal.folder, memory
            )
        return self._trees[span]

    def _training_set(self, first: int, last: int, noises: int = 1) -> TrainingSet:
        network, run = self._batched(self.conditions.part(first, last)), self.run.part(first, last)
        if noises == 1:
            return TrainingSet(network.conditions, run.latents)
        return paired_training_set(
            network, self.form, run.latents, self.journal, f"paired {first}-{last} full", noises
        )

    def arbiter(self, *, paired: bool, journal: Journal | None = None) -> Arbiter:
        """Return the arbiter on the prompts that judge, each with its own noise, or paired with several."""
        noises = effort(self.task.effort).judged_pairings if paired else 1
        samples = self._training_set(self.stages.fit, self.stages.total, noises)
        return Arbiter(samples, self._batched, journal or self.journal)


def _label(task: Task, candidate: Candidate) -> str:
    return f"{task.search} {task.nfe} {candidate.key}"
