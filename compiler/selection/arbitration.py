"""Judge: the prompts that a search did not see, and what policies lose on them."""

from __future__ import annotations

from collections.abc import Callable

from budc.compiler.denoisers.batched import Network
from budc.compiler.denoisers.conditioning import Conditions
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policies import evaluations
from budc.compiler.rollouts.policy import follow
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import Lesson
from budc.schema.policy import Policy


class Judge:
    """Measures policies on `lesson`, each once; the journal keeps what it found.

    `forwards` counts what the measurements cost, those read from the journal included; `over` makes a network over
    conditions.
    """

    def __init__(self, lesson: Lesson, over: Callable[[Conditions], Network], journal: Journal) -> None:
        self.lesson = lesson
        self.forwards = 0
        self._over = over
        self._journal = journal
        self._losses: dict[str, float] = {}

    def loss(self, label: str, policy: Policy, form: LinearForm) -> float:
        """Return the mean log error of the final latents; `label` names policy and form for the journal.

        It is 1e9 where latents are not finite.
        """
        if label not in self._losses:
            key = f"arbitration {label} on {len(self.lesson)}"
            known = self._journal.get(key)
            if known is None:
                found = follow(self._over(self.lesson.conditions), form, policy)
                known = min(objective("log-mean", latent_errors(found, self.lesson.latents)), 1e9)
                self._journal.put(key, known)
            self._losses[label] = float(known)
            self.forwards += evaluations(policy) * len(self.lesson)
        return self._losses[label]
