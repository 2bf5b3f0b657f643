"""Arbitration: what policies lose on prompts that the search did not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.experts import all_run
from budc.compiler.fitting.gauss_newton import NormalEquations
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policies import forwards_per_sample, full_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.selection.task import SearchResult, Task
from budc.compiler.storage.journal import Journal
from budc.compiler.storage.tensors import Records
from budc.compiler.training.dataset import TrainingSet
from budc.schema.policy import Policy

NOT_FINITE = 1e9
"""The loss of a policy whose final latents are not finite: the journal holds finite numbers."""


@dataclass(frozen=True)
class Contender:
    """What may become the result of a search, and its loss by the arbiter.

    `equations` say how its final latents change with its coefficients, where a refinement measured that.
    """

    loss: float
    result: SearchResult
    equations: tuple[NormalEquations, ...] = ()


class Arbiter:
    """Measures policies on `samples`, each policy once; the journal keeps the losses.

    `batched` puts the denoiser over conditions.
    """

    def __init__(
        self, samples: TrainingSet, batched: Callable[[Conditioning], BatchedDenoiser], journal: Journal
    ) -> None:
        self.samples = samples
        self._batched = batched
        self._journal = journal
        self._losses: dict[str, float] = {}
        self._forwards = 0

    def loss(self, label: str, policy: Policy, form: LinearForm) -> float:
        """Return the mean log error of the final latents; `label` names policy and form for the journal.

        It is `NOT_FINITE` where latents are not finite.
        """
        if label not in self._losses:
            key = self._key(label)
            loss = self._journal.get(key, float)
            if loss is None:
                latents = rollout_policy(self._batched(self.samples.conditions), form, policy)
                loss = min(objective("log-mean", latent_errors(latents, self.samples.latents)), NOT_FINITE)
                self._journal.put(key, loss)
            self._losses[label] = loss
            self._forwards += forwards_per_sample(policy) * len(self.samples)
        return self._losses[label]

    def spent(self) -> int:
        """Return what the measurements since the last call cost, in forwards, those read from the journal included."""
        forwards, self._forwards = self._forwards, 0
        return forwards

    def measure_elsewhere(
        self, policies: Mapping[str, Policy], arbitrate: Callable[[Mapping[str, Policy]], Iterator[Records]]
    ) -> None:
        """Let other processes measure policies by label, on the schedule of the search, so that `loss` knows them."""
        missing = {
            label: policy
            for label, policy in policies.items()
            if self._key(label) not in self._journal.records
        }
        for records in arbitrate(missing) if missing else ():
            for key, value in records.items():
                self._journal.put(key, value)

    def _key(self, label: str) -> str:
        return f"arbitration {label} on {len(self.samples)}"


def few_steps(task: Task, arbiter: Arbiter) -> list[Contender]:
    """Return the policy of as many plain steps as the budget, where the task lets it win."""
    schedule = task.few_step_schedule
    if schedule is None or task.nfe >= task.schedule.steps:
        return []
    if not all_run(task.denoiser, schedule.timesteps):
        # So few steps leave one of several denoisers none; no policy can hold that.
        return []
    policy = full_policy(schedule.steps, task.denoiser.branches)
    loss = arbiter.loss(f"{task.nfe} few steps", policy, schedule.linear_form())
    return [Contender(loss, SearchResult(policy, schedule, loss))]
