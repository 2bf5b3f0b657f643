"""A method of an evaluation: what was fitted and on which sampler it runs, its rollout, and its results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.rivals import RIVALS, CannotRun
from budc.compiler.comparison.setting import Setting
from budc.compiler.storage.journal import Journal
from budc.schema.artifact import Artifact
from budc.schema.evaluation import Latency, MethodResult
from budc.schema.policy import Metric, SamplerBinding


@dataclass(frozen=True)
class Method:
    """What is measured: what was fitted, and the sampler that it runs on.

    `name` is that of the results; `key` is the journal's and tells two policies apart. A rival has the `budget` that it
    was fitted to.
    """

    name: str
    title: str
    fitted: Fitted
    sampler: SamplerBinding
    key: str
    budget: int | None = None


def policy_key(policy: Artifact) -> str:
    """Return the `key` of a policy: its name, for people, and what tells it from others of that name."""
    return f"{policy.document.name} {policy.policy_id.removeprefix('sha256:')[:16]}"


@dataclass(frozen=True)
class Rolled:
    """A method on the held-out prompts: final latents (N, ...), and evaluations per branch of each sample."""

    method: Method
    latents: Tensor
    nfe: tuple[float, ...]

    def result(
        self,
        branches: int,
        metrics: Sequence[Metric],
        samples: Mapping[str, Sequence[float]],
        latency: Latency | None,
    ) -> MethodResult:
        """Return the results of a method with so many guidance branches; `samples` are the metrics' values."""
        nfe = statistics.fmean(self.nfe)
        return MethodResult(
            name=self.method.name,
            title=self.method.title,
            nfe=nfe,
            forwards=nfe * branches,
            fitting_forwards=self.method.fitted.forwards,
            metrics=metrics,
            samples=samples,
            latency=latency,
        )


def fit_rival(name: str, setting: Setting, nfe: int, seed: int, journal: Journal) -> Fitted | CannotRun:
    """Fit a rival to a setting, or return what the journal has; return why not where it cannot run so."""
    rival, key = RIVALS[name], f"fitted {name} {nfe}"
    fitted = journal.get(key, Fitted)
    if fitted is None:
        folder = journal.folder / f"fitted-{rival.shares_search or name}-{nfe}"
        try:
            fitted = rival.fit(setting, nfe, seed, folder)
            fitted.check_experts(setting.sampler)
        except CannotRun as reason:
            return reason
        journal.put(key, fitted)
    return fitted
