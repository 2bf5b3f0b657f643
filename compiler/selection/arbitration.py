"""Arbitration: the prompts that a search did not see, and what policies lose on them."""

from __future__ import annotations

from collections.abc import Callable

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.schema.policy import Policy


class Arbiter:
    """Measures policies on `training_set`, each once; the journal keeps what it found.

    `forwards` counts what the measurements cost, those read from the journal included; `over` makes a network over
    conditions.
    """

    def __init__(
        self, training_set: TrainingSet, over: Callable[[Conditioning], BatchedDenoiser], journal: Journal
    ) -> None:
        self.samples = training_set
        self.forwards = 0
        self._over = over
        self._journal = journal
        self._losses: dict[str, float] = {}

    def loss(self, label: str, policy: Policy, form: LinearForm) -> float:
        """Return the mean log error of the final latents; `label` names policy and form for the journal.

        It is 1e9 where latents are not finite.
        """
        if label not in self._losses:
            key = f"arbitration {label} on {len(self.samples)}"
            known = self._journal.get(key)
            if known is None:
                found = rollout_policy(self._over(self.samples.conditions), form, policy)
                known = min(objective("log-mean", latent_errors(found, self.samples.latents)), 1e9)
                self._journal.put(key, known)
            self._losses[label] = float(known)
            self.forwards += forwards_per_sample(policy) * len(self.samples)
        return self._losses[label]
