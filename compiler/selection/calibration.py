"""Calibration: the prompts of a search and their reference run, and what is measured on some of them.

Coefficients are fitted on the first, `stages.fit`; where prompts are left over to judge by, they are the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.experts import check_all_run
from budc.compiler.rollouts.candidate import candidate_of
from budc.compiler.rollouts.forest import Forest
from budc.compiler.rollouts.metrics import objective
from budc.compiler.rollouts.node_memory import MEMORY
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.reference_run import ReferenceRun, reference_run
from budc.compiler.rollouts.tree import Tree
from budc.compiler.rollouts.workers import PromptSpan, SearchWorkers
from budc.compiler.search import Candidate, algorithm
from budc.compiler.selection.arbitration import NOT_FINITE, Arbiter, Contender
from budc.compiler.selection.effort import effort
from budc.compiler.selection.network import CALIBRATION_RUN, batched
from budc.compiler.selection.refinement import Refiner
from budc.compiler.selection.scores import policy_of
from budc.compiler.selection.stages import Stages, stages_of
from budc.compiler.selection.task import ForwardCount, SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.compiler.training.augmentation import paired_training_set
from budc.compiler.training.dataset import TrainingSet
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


class Calibration:
    """A task's prompts after their reference run, which is made or read from the journal at once.

    Where there are `workers`, the reference run, the rollouts of candidates, the measurements of a refinement and the
    arbitration are theirs. `stages` are those of the effort, unless they are given. `reference_forwards` is what the
    reference run cost.

    Raises:
        UsageError: too few prompts to judge an alignment or a number of steps by, or a schedule on which one of
            several denoisers has no step.
        BudcError: see `BatchedDenoiser`.
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
        self.conditions = task.conditions.rows(self.stages.chosen(len(task.conditions)))
        self._trees: dict[PromptSpan, Tree] = {}
        network = self.network((0, self.stages.total), stack=False)
        elsewhere = None if workers is None else workers.reference_chunks
        self.run: ReferenceRun = reference_run(
            network, self.form, journal, CALIBRATION_RUN, task.recorded, elsewhere
        )
        self.reference_forwards = network.forwards

    def network(self, span: PromptSpan, stack: bool | None = None) -> BatchedDenoiser:
        """Return the denoiser on some prompts. Several rollouts may run at once with it, unless `stack` is False."""
        return self.batched(self.conditions.part(*span), stack)

    def batched(self, conditions: Conditioning, stack: bool | None = False) -> BatchedDenoiser:
        """Return the denoiser on conditions."""
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

    def samples(self, first: int, last: int, noises: int = 1) -> TrainingSet:
        """Return the prompts first..last-1 with the final latents of their reference run, with several noises each."""
        network, run = self.network((first, last), stack=False), self.run.part(first, last)
        if noises == 1:
            return TrainingSet(network.conditions, run.latents)
        return paired_training_set(
            network, self.form, run.latents, self.journal, f"paired {first}-{last} full", noises
        )

    def everyone(self) -> Arbiter:
        """Return what measures policies on all prompts."""
        return Arbiter(self.samples(0, self.stages.total), self.batched, self.journal)

    def arbiter(self, *, paired: bool, journal: Journal | None = None) -> Arbiter:
        """Return the arbiter on the prompts that judge, each with its own noise, or paired with several."""
        noises = effort(self.task.effort).judged_pairings if paired else 1
        samples = self.samples(self.stages.fit, self.stages.total, noises)
        return Arbiter(samples, self.batched, journal or self.journal)

    @property
    def refiner(self) -> Refiner:
        """What refines policies."""
        return Refiner(self.form, self.run, self.network, self.journal, self.workers)

    def refined(
        self, task: Task, candidate: Candidate, contender: Contender, arbiter: Arbiter, origin: str
    ) -> tuple[Contender, ForwardCount]:
        """Return a candidate with refined coefficients where the arbiter prefers these and the task may have them, and
        the forwards spent. `origin` tells the journal where its coefficients came from. What the arbiter spent before
        has been taken.
        """
        prompts = effort(task.effort).refined(task.nfe, self.form.steps, self.stages.fit)
        fixed = candidate.rule in FIXED_RULES or not algorithm(task.search).arbitrated
        if fixed or not prompts or not task.refine:
            return contender, ForwardCount()
        label = f"{task.label(candidate)} {origin}"
        contender, forwards = self.refiner.better(label, contender, prompts, arbiter)
        return contender, ForwardCount(refinement=forwards + arbiter.spent())

    def fitted(self, candidate: Candidate) -> Fit:
        """Fit a candidate's coefficients on all prompts."""
        forest = self.forest((0, self.stages.total))
        with progress(f"{FIT_PASS} on {self.stages.total} prompts", 1) as bar:
            (rollout,) = forest.roll_out([candidate])
            bar.advance()
        policy = policy_of(forest.trees[0], candidate, rollout.rows)
        return Fit(policy, objective("log-mean", rollout.errors), rollout.forwards)

    def refitted(self, policy: Policy) -> Fit:
        """Keep a policy's masks, and its own coefficients or those fitted on all prompts, whichever lose less there."""
        candidate = candidate_of(policy, self.task.denoiser.branches)
        fit, everyone = self.fitted(candidate), self.everyone()
        with progress(f"{FIT_PASS}, beside its own coefficients", 1) as bar:
            loss = everyone.loss(f"{self.task.label(candidate)} as given", policy, self.form)
            bar.advance()
        fit = replace(fit, forwards=fit.forwards + everyone.spent())
        if loss >= NOT_FINITE:
            loss = math.inf
        return replace(fit, policy=policy, loss=loss) if loss <= fit.loss else fit

    def judged(self, result: SearchResult) -> tuple[Tensor, Tensor]:
        """Return final latents (N, ...) on the prompts that judge: of what was found, before it was fitted on these as
        well, and of the reference run.
        """
        samples = self.samples(self.stages.fit, self.stages.total)
        policy = result.policy if result.judged is None else result.judged
        return rollout_policy(
            self.batched(samples.conditions), result.schedule.linear_form(), policy
        ), samples.latents
