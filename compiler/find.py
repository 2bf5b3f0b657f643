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

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import torch

from budc.compiler.conditions import Conditions
from budc.compiler.denoiser import Denoiser
from budc.compiler.experts import all_run, check_all_run
from budc.compiler.follow import follow
from budc.compiler.fullrun import PAYLOADS, FullRun, full_run
from budc.compiler.gram import mean_gram, segment_errors
from budc.compiler.journal import Journal
from budc.compiler.metrics import latent_errors
from budc.compiler.network import Network
from budc.compiler.pairings import paired_lesson
from budc.compiler.refine import Lesson, refine
from budc.compiler.rollout import evaluations, full_policy
from budc.compiler.search import Algorithm, Candidate, Space, algorithm
from budc.compiler.solver import LinearForm, linear_form
from budc.compiler.study import Scored, objective, policy_of, search
from budc.compiler.tree import Tree, bounded
from budc.compiler.unroll import PolicyParameters
from budc.policies.profile import SearchDefaults
from budc.schema.errors import UsageError
from budc.schema.policy import BranchPolicy, Policy

SEARCH_SHARE = 0.75
"""Share of the calibration prompts that the search sees; finalists are arbitrated on the others."""

EPOCHS = 4
"""Epochs of the refinement."""


class Schedule(msgspec.Struct, frozen=True):
    """Noise levels (steps + 1, terminal value included) and the timesteps (steps) that the network is given."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.timesteps)


@dataclass(frozen=True)
class Task:
    """What is to be found. `short` is the schedule of as many steps as the budget, where that may win too."""

    denoiser: Denoiser
    scheduler: Any
    schedule: Schedule
    conditions: Conditions
    nfe: int
    defaults: SearchDefaults
    search: str = "joint"
    seed: int = 0
    align: bool = False
    separate: bool = False
    schedules: tuple[tuple[int, ...], ...] = ()
    short: Schedule | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What was found: the policy on its schedule, the loss on the search prompts, and what it cost.

    `notes` say in words which choices were made on prompts that the search had not seen; `forwards` are forward
    equivalents, the full runs included, a backward counted as two.
    """

    policy: Policy
    schedule: Schedule
    loss: float
    candidates: int
    forwards: int
    aligned: bool
    notes: tuple[str, ...]


def searched_on(search: str, prompts: int, *, judged: bool) -> int:
    """Return how many of the calibration prompts a search sees; the others arbitrate.

    Raises:
        UsageError: an alignment or a number of steps is to be `judged`, and no prompt is left to do it.
    """
    arbitrated = algorithm(search).arbitrated
    seen = max(1, round(SEARCH_SHARE * prompts)) if arbitrated and prompts > 1 else prompts
    if seen == prompts and arbitrated and judged:
        raise UsageError(
            f"{prompts} calibration prompts leave none to judge an alignment or a number of steps by",
            remedy="give at least three; two dozen is a good number",
        )
    return seen


class Finder:
    """Finds policies of several budgets for one denoiser, sharing the full run and the tree of rollouts.

    Raises:
        UsageError: too few prompts to judge an alignment or a number of steps by, or a schedule on which one of
            several networks has no step.
        BudcError: see `study.search` and `Network`.
    """

    def __init__(self, task: Task, journal: Journal) -> None:
        check_all_run(task.denoiser, task.schedule.timesteps)
        self.task = task
        self.journal = journal
        self.form = linear_form(task.scheduler, task.schedule.sigmas, task.schedule.timesteps)
        self._network = self._over(task.conditions)
        self.run: FullRun = full_run(self._network, self.form, journal, "calibration full")
        self._trees: dict[int, Tree] = {}

    def _over(self, conditions: Conditions, stack: bool | None = False) -> Network:
        # Only the tree rolls out several candidates at once; elsewhere a stacked batch would be padding.
        journal = self.journal
        return Network(
            self.task.denoiser,
            conditions,
            journal.get("batch") or self.task.batch,
            halved=lambda batch: journal.put("batch", batch),
            stack=stack,
        )

    def _part(self, first: int, last: int) -> tuple[Network, FullRun]:
        return self._over(self.task.conditions.part(first, last)), self.run.part(first, last)

    def find(self, task: Task) -> Outcome:
        """Return the best policy for a task that differs from the first in budget and search alone."""
        nfe = task.nfe
        chosen = algorithm(task.search)
        total = len(task.conditions)
        seen = searched_on(task.search, total, judged=task.align or task.short is not None)
        tree = self._tree(seen)
        found = search(task.search, self._space(task, chosen, tree), tree, self.journal, task.seed)
        spent = self._network.forwards + found.forwards
        best, notes = found.finalists[0], list[str]()
        outcome = Outcome(best.policy, task.schedule, best.loss, found.candidates, spent, False, ())
        if seen == total:
            return outcome
        judge = self._lesson(seen, total, paired=task.align)
        losses = [
            self._arbitrate(f"{task.search} {nfe} {best.candidate.key}", best.policy, self.form, judge)
            for best in found.finalists
        ]
        place = losses.index(min(losses))
        winner = found.finalists[place]
        outcome = replace(outcome, policy=winner.policy, loss=winner.loss)
        spent += sum(evaluations(finalist.policy) for finalist in found.finalists) * len(judge)
        notes.append(f"finalist {place + 1} of {len(losses)} by arbitration on {total - seen} other prompts")
        contenders = [(losses[place], outcome)]
        # So few steps may leave one of several networks none; no policy can hold that.
        short = task.short if task.short and all_run(task.denoiser, task.short.timesteps) else None
        if short is not None and nfe < task.schedule.steps:
            contenders.append(self._short(task, judge, short))
            spent += evaluations(contenders[-1][1].policy) * len(judge)
        if task.align:
            lesson = self._lesson(0, seen, paired=True)
            spent += (len(lesson) + len(judge) - total) * self.form.steps * len(task.denoiser.branches)
            for index, (before, contender) in enumerate(list(contenders)):
                contenders[index], cost = self._aligned(task, before, contender, lesson, judge)
                spent += cost
        _, outcome = min(contenders, key=lambda pair: pair[0])
        if outcome.policy is winner.policy and winner.candidate.rule != "plain":
            policy, cost = self._refitted(task, winner, seen)
            spent += cost
            if policy is not None:
                outcome = replace(outcome, policy=policy)
                notes.append(f"coefficients fitted again on all {total} prompts")
        if len(contenders) > 1:
            notes.append(f"{outcome.schedule.steps} steps by arbitration")
        if task.align:
            notes.append("alignment kept" if outcome.aligned else "alignment gained nothing on other prompts")
        return replace(outcome, candidates=found.candidates, forwards=spent, notes=tuple(notes))

    @property
    def full_forwards(self) -> int:
        """What the full run cost."""
        return self._network.forwards

    def fitted(self, candidate: Candidate) -> tuple[Policy, float, int]:
        """Return a candidate with coefficients fitted on all prompts, its log loss on them, and the forwards spent.

        The loss is infinite where final latents are not finite.
        """
        tree = self._tree(len(self.task.conditions))
        (rollout,) = tree.roll([candidate])
        return (
            policy_of(tree, candidate, rollout.rows),
            objective("log-mean", rollout.errors),
            rollout.forwards,
        )

    def _refitted(self, task: Task, winner: Scored, seen: int) -> tuple[Policy | None, int]:
        # None where coefficients of all prompts lose more on them than those of the prompts that were searched on.
        policy, loss, cost = self.fitted(winner.candidate)
        others = self._lesson(seen, len(self.run), paired=False)
        label = f"{task.search} {task.nfe} {winner.candidate.key}"
        rest = self._arbitrate(label, winner.policy, self.form, others)
        cost += evaluations(winner.policy) * len(others) if task.align else 0
        kept = loss <= (winner.loss * seen + rest * len(others)) / len(self.run)
        return policy if kept else None, cost

    def _tree(self, seen: int) -> Tree:
        if seen not in self._trees:
            network = self._over(self.task.conditions.part(0, seen), stack=None)
            self._trees[seen] = Tree(network, self.form, self.run.part(0, seen))
        return self._trees[seen]

    def _space(self, task: Task, chosen: Algorithm, tree: Tree) -> Space:
        errors = {}
        first_steps = task.denoiser.first_steps(task.schedule.timesteps)
        if chosen.objective != "mean":
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
            defaults=task.defaults,
            separate=task.separate,
            errors=errors,
            schedules=task.schedules,
            first_steps=first_steps,
        )

    def _lesson(self, first: int, last: int, *, paired: bool) -> Lesson:
        network, run = self._part(first, last)
        if not paired:
            return Lesson(network.conditions, run.latents)
        return paired_lesson(network, self.form, run.latents, self.journal, f"paired {first}-{last} full")

    def _arbitrate(self, label: str, policy: Policy, form: LinearForm, judge: Lesson) -> float:
        key = f"arbitration {label} on {len(judge)}"
        known = self.journal.get(key)
        if known is None:
            found = follow(self._over(judge.conditions), form, policy)
            known = min(objective("log-mean", latent_errors(found, judge.latents)), 1e9)
            self.journal.put(key, known)
        return float(known)

    def _short(self, task: Task, judge: Lesson, schedule: Schedule) -> tuple[float, Outcome]:
        policy = full_policy(schedule.steps, task.denoiser.branches)
        form = linear_form(task.scheduler, schedule.sigmas, schedule.timesteps)
        loss = self._arbitrate(f"{task.nfe} few steps", policy, form, judge)
        return loss, Outcome(policy, schedule, loss, 0, 0, False, ())

    def _aligned(
        self, task: Task, before: float, outcome: Outcome, lesson: Lesson, judge: Lesson
    ) -> tuple[tuple[float, Outcome], int]:
        # `before` is the loss of `outcome` on what judges.
        first_steps = task.denoiser.first_steps(outcome.schedule.timesteps)
        parameters = PolicyParameters(
            outcome.policy,
            task.scheduler,
            outcome.schedule.sigmas,
            outcome.schedule.timesteps,
            True,
            first_steps=first_steps,
        )
        if task.denoiser.first_steps(parameters.form().timesteps.detach()) != first_steps:
            # The schedule's own timesteps are rounded over a boundary that the exact ones are not.
            return (before, outcome), 0
        refined = refine(
            task.denoiser,
            parameters,
            lesson,
            judge,
            epochs=EPOCHS,
            evaluations=evaluations(outcome.policy),
            seed=task.seed,
            journal=self.journal,
            label=f"align {task.search} {task.nfe} {outcome.schedule.steps}",
        )
        policy, schedule = aligned(outcome.policy, parameters)
        form = linear_form(task.scheduler, schedule.sigmas, schedule.timesteps)
        label = f"{task.search} {task.nfe} {outcome.schedule.steps} aligned"
        after = self._arbitrate(label, policy, form, judge)
        cost = refined.forwards + evaluations(policy) * len(judge)
        if after < before:
            return (after, replace(outcome, policy=policy, schedule=schedule, aligned=True)), cost
        return (before, outcome), cost


@torch.no_grad()
def aligned(policy: Policy, parameters: PolicyParameters) -> tuple[Policy, Schedule]:
    """Return the policy and the schedule that trained parameters describe, coefficients within their bounds."""
    sigmas = parameters.schedule().float()
    timesteps = (sigmas[:-1].double() * parameters.scale).float()
    branches = [
        BranchPolicy(
            names=[name],
            mask=list(entry.mask),
            predictor=[
                [bounded(float(value)) for value in parameters.row(name, step)]
                for step in range(len(entry.mask))
            ],
        )
        for entry in policy.branches
        for name in entry.names
    ]
    if len({msgspec.json.encode(branch.predictor) for branch in branches}) == 1 and len(policy.branches) == 1:
        branches = [msgspec.structs.replace(branches[0], names=list(policy.branches[0].names))]
    schedule = Schedule(tuple(sigmas.tolist()), tuple(timesteps.tolist()))
    return Policy(payload=policy.payload, branches=branches), schedule
