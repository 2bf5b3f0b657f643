"""From a task to its best policy, on tensors alone.

- The reference run of the calibration prompts: its states, and the Gram matrices of what it computed.
- The search, on three quarters of the prompts.
- Arbitration: the finalists on the last quarter, which the search did not see, by the search's own objective.
- Alignment, where it is asked for: coefficients and sigmas trained by gradient on the search prompts, each paired with
  several noises, and kept where the last quarter, paired as well, loses less with them.
- Otherwise the winner's coefficients are fitted once more, on all calibration prompts.

Reference searches (`Algorithm.arbitrated` is false) are given all prompts, as their authors do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.experts import check_all_run
from budc.compiler.rollouts.metrics import objective
from budc.compiler.rollouts.reference_run import ReferenceRun, reference_run
from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate
from budc.compiler.selection.alignment import align
from budc.compiler.selection.arbitration import Arbiter, Contender, few_steps
from budc.compiler.selection.settings import settings_of
from budc.compiler.selection.space import space_of
from budc.compiler.selection.split import searched_on
from budc.compiler.selection.study import Scored, StudyResult, policy_of, search
from budc.compiler.selection.task import ForwardCount, SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.compiler.training.augmentation import paired_training_set
from budc.compiler.training.dataset import TrainingSet
from budc.schema.policy import Policy


@dataclass(frozen=True)
class Fit:
    """A candidate's policy with coefficients fitted on all prompts, its log loss on them, and the forwards spent.

    The loss is infinite where final latents are not finite.
    """

    policy: Policy
    loss: float
    forwards: int


class Finder:
    """Finds policies of several budgets for one denoiser, which share the reference run and the tree of rollouts.

    Raises:
        UsageError: too few prompts to judge an alignment or a number of steps by, or a schedule on which one of
            several denoisers has no step.
        BudcError: see `study.search` and `BatchedDenoiser`.
    """

    def __init__(self, task: Task, journal: Journal) -> None:
        check_all_run(task.denoiser, task.schedule.timesteps)
        # What cannot be arbitrated is refused before the reference run, not after it.
        _searched_on(task)
        self.task = task
        self.journal = journal
        self.form = task.schedule.linear_form()
        self._network = self._batched(task.conditions)
        self.run: ReferenceRun = reference_run(self._network, self.form, journal, "calibration full")
        self._trees: dict[int, Tree] = {}

    @property
    def reference_forwards(self) -> int:
        """What the reference run cost."""
        return self._network.forwards

    def find(self, task: Task) -> SearchResult:
        """Return the best policy for a task that differs from the first in budget and search alone."""
        seen = _searched_on(task)
        tree = self._tree(seen)
        study = search(task.search, space_of(task, tree), tree, self.journal, task.seed)
        best = study.finalists[0]
        forwards = ForwardCount(reference=self.reference_forwards, search=study.forwards)
        result = SearchResult(best.policy, task.schedule, best.loss, study.candidates, forwards)
        if seen < len(task.conditions):
            result = self._arbitrated(task, study, result, seen)
        return replace(result, settings=settings_of(task, result))

    def fitted(self, candidate: Candidate) -> Fit:
        """Fit a candidate's coefficients on all prompts."""
        tree = self._tree(len(self.task.conditions))
        (rollout,) = tree.roll_out([candidate])
        policy = policy_of(tree, candidate, rollout.rows)
        return Fit(policy, objective("log-mean", rollout.errors), rollout.forwards)

    def _arbitrated(self, task: Task, study: StudyResult, result: SearchResult, seen: int) -> SearchResult:
        """Return what the prompts prefer that the search did not see; `result` is what the search would take."""
        total = len(task.conditions)
        arbiter = self._arbiter(seen, paired=task.align)
        losses = [arbiter.loss(_label(task, scored), scored.policy, self.form) for scored in study.finalists]
        index = losses.index(min(losses))
        winner = study.finalists[index]
        notes = [f"finalist {index + 1} of {len(losses)} by arbitration on {total - seen} other prompts"]
        contenders = [Contender(losses[index], replace(result, policy=winner.policy, loss=winner.loss))]
        contenders += few_steps(task, arbiter)
        forwards = result.forwards
        if task.align:
            contenders, spent = self._aligned(task, contenders, arbiter, seen)
            forwards += ForwardCount(alignment=spent)
        best = min(contenders, key=lambda contender: contender.loss).result
        if best.policy is winner.policy and winner.candidate.rule != "plain":
            policy, spent_on_refit = self._refitted(task, winner, seen, arbiter)
            forwards += spent_on_refit
            if policy is not None:
                best = replace(best, policy=policy)
                notes.append(f"coefficients fitted again on all {total} prompts")
        if len(contenders) > 1:
            notes.append(f"{best.schedule.steps} steps by arbitration")
        if task.align:
            notes.append("alignment kept" if best.aligned else "alignment gained nothing on other prompts")
        forwards += ForwardCount(arbitration=arbiter.forwards)
        return replace(best, candidates=result.candidates, forwards=forwards, notes=tuple(notes))

    def _aligned(
        self, task: Task, contenders: Sequence[Contender], arbiter: Arbiter, seen: int
    ) -> tuple[list[Contender], int]:
        """Return every contender before or after its alignment, whichever is better, and the forwards spent."""
        training_set = self._training_set(0, seen, paired=True)
        further_samples = len(training_set) + len(arbiter.samples) - len(task.conditions)
        spent = further_samples * self.form.steps * len(task.denoiser.branches)
        better = []
        for contender in contenders:
            contender, forwards = align(task, contender, training_set, arbiter, self.journal)
            better.append(contender)
            spent += forwards
        return better, spent

    def _refitted(
        self, task: Task, winner: Scored, seen: int, arbiter: Arbiter
    ) -> tuple[Policy | None, ForwardCount]:
        """Return the winner with coefficients of all prompts, None where they lose more than those it has."""
        fit = self.fitted(winner.candidate)
        # An alignment's arbiter has paired samples; the fit is compared on the prompts' own noise.
        unpaired = self._arbiter(seen, paired=False) if task.align else arbiter
        loss = unpaired.loss(_label(task, winner), winner.policy, self.form)
        before = (winner.loss * seen + loss * len(unpaired.samples)) / len(self.run)
        forwards = ForwardCount(
            refit=fit.forwards, arbitration=0 if unpaired is arbiter else unpaired.forwards
        )
        return fit.policy if fit.loss <= before else None, forwards

    def _batched(self, conditions: Conditioning, stack: bool | None = False) -> BatchedDenoiser:
        # Only the tree rolls out several candidates at once; elsewhere a stacked batch would be padding.
        journal = self.journal
        return BatchedDenoiser(
            self.task.denoiser,
            conditions,
            journal.get("batch", int, lambda size: size >= 1) or self.task.batch,
            halved=lambda batch: journal.put("batch", batch),
            stack=stack,
        )

    def _tree(self, seen: int) -> Tree:
        if seen not in self._trees:
            network = self._batched(self.task.conditions.part(0, seen), stack=None)
            self._trees[seen] = Tree(network, self.form, self.run.part(0, seen))
        return self._trees[seen]

    def _training_set(self, first: int, last: int, *, paired: bool) -> TrainingSet:
        network, run = self._batched(self.task.conditions.part(first, last)), self.run.part(first, last)
        if not paired:
            return TrainingSet(network.conditions, run.latents)
        return paired_training_set(
            network, self.form, run.latents, self.journal, f"paired {first}-{last} full"
        )

    def _arbiter(self, seen: int, *, paired: bool) -> Arbiter:
        samples = self._training_set(seen, len(self.run), paired=paired)
        return Arbiter(samples, self._batched, self.journal)


def _searched_on(task: Task) -> int:
    return searched_on(task.search, len(task.conditions), arbitrates=task.arbitrates)


def _label(task: Task, scored: Scored) -> str:
    return f"{task.search} {task.nfe} {scored.candidate.key}"
