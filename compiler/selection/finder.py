"""The heart of a compile, on tensors alone: a denoiser, prompts and a budget become a policy.

1. The full run of the calibration prompts: its states, and the Gram matrices of what it computed.
2. The search, on three quarters of them.
3. Arbitration: the finalists on the last quarter, which the search did not see, by the search's own objective.
   The winner's coefficients are then fitted once more, on all calibration prompts.
4. With `align`, refinement of coefficients and sigmas by gradient, on the search prompts in several pairings with
   noise; kept where the last quarter, in as many pairings, says so.

Reference searches (`Algorithm.arbitrated` is false) are given all prompts, as their authors do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.experts import all_run, check_all_run
from budc.compiler.fitting.gram import mean_gram, segment_errors
from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.rollouts.metrics import objective
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.reference_run import ReferenceRun, reference_run
from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate, Space, algorithm
from budc.compiler.selection.alignment import align
from budc.compiler.selection.arbitration import Arbiter
from budc.compiler.selection.study import Scored, policy_of, search
from budc.compiler.selection.task import NoiseSchedule, SearchResult, Task, searched_on
from budc.compiler.storage.journal import Journal
from budc.compiler.training.augmentation import paired_training_set
from budc.compiler.training.dataset import TrainingSet
from budc.schema.policy import PAYLOADS, Policy


class Finder:
    """Finds policies of several budgets for one denoiser, sharing the full run and the tree of rollouts.

    Raises:
        UsageError: too few prompts to arbiter an alignment or a number of steps by, or a schedule on which one of
            several networks has no step.
        BudcError: see `study.search` and `Network`.
    """

    def __init__(self, task: Task, journal: Journal) -> None:
        check_all_run(task.denoiser, task.schedule.timesteps)
        self.task = task
        self.journal = journal
        self.form = linear_form(task.scheduler, task.schedule.sigmas, task.schedule.timesteps)
        self._network = self._over(task.conditions)
        self.run: ReferenceRun = reference_run(self._network, self.form, journal, "calibration full")
        self._trees: dict[int, Tree] = {}

    def _over(self, conditions: Conditioning, stack: bool | None = False) -> BatchedDenoiser:
        # Only the tree rolls out several candidates at once; elsewhere a stacked batch would be padding.
        journal = self.journal
        return BatchedDenoiser(
            self.task.denoiser,
            conditions,
            journal.get("batch") or self.task.batch,
            halved=lambda batch: journal.put("batch", batch),
            stack=stack,
        )

    def _part(self, first: int, last: int) -> tuple[BatchedDenoiser, ReferenceRun]:
        return self._over(self.task.conditions.part(first, last)), self.run.part(first, last)

    def find(self, task: Task) -> SearchResult:
        """Return the best policy for a task that differs from the first in budget and search alone."""
        total = len(task.conditions)
        seen = searched_on(task.search, total, judged=task.align or task.few_step_schedule is not None)
        tree = self._tree(seen)
        found = search(task.search, self._space(task, tree), tree, self.journal, task.seed)
        best, spent = found.finalists[0], self._network.forwards + found.forwards
        outcome = SearchResult(best.policy, task.schedule, best.loss, found.candidates, spent, False, ())
        return outcome if seen == total else self._arbitrated(task, outcome, found.finalists, seen)

    def _arbitrated(
        self, task: Task, outcome: SearchResult, finalists: Sequence[Scored], seen: int
    ) -> SearchResult:
        # `outcome` is what the search would take.
        total = len(task.conditions)
        arbiter = self._arbiter(seen, paired=task.align)
        losses = [arbiter.loss(_label(task, one), one.policy, self.form) for one in finalists]
        place = losses.index(min(losses))
        winner, spent = finalists[place], 0
        notes = [f"finalist {place + 1} of {len(losses)} by arbitration on {total - seen} other prompts"]
        contenders = [(losses[place], replace(outcome, policy=winner.policy, loss=winner.loss))]
        # So few steps may leave one of several networks none; no policy can hold that.
        few = task.few_step_schedule
        if few is not None and all_run(task.denoiser, few.timesteps) and task.nfe < task.schedule.steps:
            contenders.append(_few_steps(task, few, arbiter))
        if task.align:
            training_set = self._training_set(0, seen, paired=True)
            full_runs = len(training_set) + len(arbiter.samples) - total
            spent += full_runs * self.form.steps * len(task.denoiser.branches)
            for index, (before, contender) in enumerate(list(contenders)):
                contenders[index], cost = align(task, contender, before, training_set, arbiter, self.journal)
                spent += cost
        _, best = min(contenders, key=lambda pair: pair[0])
        if best.policy is winner.policy and winner.candidate.rule != "plain":
            policy, cost = self._refitted(task, winner, seen, arbiter)
            spent += cost
            if policy is not None:
                best = replace(best, policy=policy)
                notes.append(f"coefficients fitted again on all {total} prompts")
        if len(contenders) > 1:
            notes.append(f"{best.schedule.steps} steps by arbitration")
        if task.align:
            notes.append("alignment kept" if best.aligned else "alignment gained nothing on other prompts")
        spent += outcome.forwards + arbiter.forwards
        return replace(best, candidates=outcome.candidates, forwards=spent, notes=tuple(notes))

    @property
    def full_forwards(self) -> int:
        """What the full run cost."""
        return self._network.forwards

    def fitted(self, candidate: Candidate) -> tuple[Policy, float, int]:
        """Return a candidate with coefficients fitted on all prompts, its log loss on them, and the forwards spent.

        The loss is infinite where final latents are not finite.
        """
        tree = self._tree(len(self.task.conditions))
        (rollout,) = tree.roll_out([candidate])
        return (
            policy_of(tree, candidate, rollout.rows),
            objective("log-mean", rollout.errors),
            rollout.forwards,
        )

    def _refitted(self, task: Task, winner: Scored, seen: int, arbiter: Arbiter) -> tuple[Policy | None, int]:
        # None where coefficients of all prompts lose more on them than those of the prompts that were searched on.
        policy, loss, spent = self.fitted(winner.candidate)
        known = self._arbiter(seen, paired=False) if task.align else arbiter
        rest = known.loss(_label(task, winner), winner.policy, self.form)
        kept = loss <= (winner.loss * seen + rest * len(known.samples)) / len(self.run)
        return policy if kept else None, spent + (0 if known is arbiter else known.forwards)

    def _tree(self, seen: int) -> Tree:
        if seen not in self._trees:
            network = self._over(self.task.conditions.part(0, seen), stack=None)
            self._trees[seen] = Tree(network, self.form, self.run.part(0, seen))
        return self._trees[seen]

    def _space(self, task: Task, tree: Tree) -> Space:
        errors: dict[str, Sequence[Sequence[Sequence[float]]]] = {}
        first_steps = task.denoiser.first_steps(task.schedule.timesteps)
        if algorithm(task.search).objective != "mean":
            errors = {
                payload: segment_errors(
                    mean_gram(tree.run.gram[payload]), 2, first_steps=first_steps
                ).tolist()
                for payload in PAYLOADS
            }
        return Space(
            steps=task.schedule.steps,
            nfe=task.nfe,
            branches=task.denoiser.branches,
            annealing=task.annealing,
            separate=task.separate,
            errors=errors,
            published_masks=task.published_masks,
            first_steps=first_steps,
        )

    def _training_set(self, first: int, last: int, *, paired: bool) -> TrainingSet:
        network, run = self._part(first, last)
        if not paired:
            return TrainingSet(network.conditions, run.latents)
        return paired_training_set(
            network, self.form, run.latents, self.journal, f"paired {first}-{last} full"
        )

    def _arbiter(self, seen: int, *, paired: bool) -> Arbiter:
        return Arbiter(self._training_set(seen, len(self.run), paired=paired), self._over, self.journal)


def _label(task: Task, scored: Scored) -> str:
    return f"{task.search} {task.nfe} {scored.candidate.key}"


def _few_steps(task: Task, schedule: NoiseSchedule, arbiter: Arbiter) -> tuple[float, SearchResult]:
    policy = full_policy(schedule.steps, task.denoiser.branches)
    form = linear_form(task.scheduler, schedule.sigmas, schedule.timesteps)
    loss = arbiter.loss(f"{task.nfe} few steps", policy, form)
    return loss, SearchResult(policy, schedule, loss, 0, 0, False, ())


def compile_policies(
    task: Task, budgets: Sequence[int], journal: Journal, vary: Callable[[Task, int], Task] | None = None
) -> Iterator[tuple[int, SearchResult]]:
    """Yield (NFE, outcome) for every budget; the full run and the rollouts are shared.

    `vary` returns the task of a budget where more than its NFE differs.
    """
    finder = Finder(task, journal)
    for nfe in budgets:
        each = replace(task, nfe=nfe)
        yield nfe, finder.find(vary(each, nfe) if vary else each)
