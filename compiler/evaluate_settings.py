"""What an evaluation measures: the policies and the rivals in each setting that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

from torch import Tensor

from budc.compiler.comparison.changed_model import Deployment
from budc.compiler.comparison.changes import Change
from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.frame_values import Values, frame_values
from budc.compiler.comparison.kept_frames import keep_frames, load_decoder
from budc.compiler.comparison.method import Method, Rolled, policy_key
from budc.compiler.comparison.rivals import CannotRun
from budc.compiler.comparison.setting_run import SettingRun
from budc.compiler.emit import output_shape
from budc.compiler.evaluate_request import EvaluationPlan
from budc.compiler.evaluation.reference import prompt_set
from budc.compiler.metrics import FrameMetric
from budc.compiler.metrics.summary import summary
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.model_workers import ModelWorkers
from budc.schema.artifact import Artifact
from budc.schema.evaluation import (
    Latency,
    MethodResult,
    NotMeasuredNote,
    SettingResult,
)
from budc.schema.kept_frames import KeptFrames
from budc.schema.policy import ModelBinding
from budc.schema.report_names import FEWER_STEPS, LATENT_MSE


class Measured(NamedTuple):
    """One setting: what ran, the setting without methods, and the methods."""

    run: SettingRun
    setting: SettingResult
    results: Sequence[tuple[Method, MethodResult]]


@dataclass(frozen=True)
class Evaluation:
    """The model of an evaluation, loaded, and the metrics that can be measured."""

    plan: EvaluationPlan
    model: LoadedModel
    binding: ModelBinding
    journal: Journal
    metrics: Mapping[str, FrameMetric]
    workers: ModelWorkers | None = None

    def measure(self, change: Change) -> Measured:
        """Measure every method in one setting."""
        plan = self.plan
        run = self.calibrated if change is plan.settings[0] else self._run(change)
        methods = self._methods(run)
        rolled = [run.roll_out(method) for method in methods]
        latencies = run.latencies(methods, plan.repeats) if plan.repeats else {}
        values = frame_values(
            run.model,
            {item.method.key: item.latents for item in rolled},
            run.held_out.latents,
            [sample.prompt for sample in run.samples],
            self.metrics,
            self.journal,
            change.key,
        )
        setting = SettingResult(
            name=change.name,
            scheduler=run.full.scheduler,
            config_digest=run.full.config_digest,
            steps=run.full.steps,
            guidance=run.full.guidance,
            shape=output_shape(change.profile),
            prompts=prompt_set(run.samples),
            methods=[],
        )
        results = [
            (item.method, self._row(item, run, values, latencies.get(item.method.key))) for item in rolled
        ]
        return Measured(run, setting, results)

    def _methods(self, run: SettingRun) -> list[Method]:
        """Return the full run, the policies, and the rivals at each of their budgets."""
        plan = self.plan
        budgets = sorted({artifact.document.budget.nfe for artifact in plan.policies})
        methods = [run.full_method(), *(run.of_policy(artifact, self.model) for artifact in plan.policies)]
        for nfe in budgets:
            for name in plan.against:
                if name == FEWER_STEPS:
                    methods.append(run.fewer_steps(nfe))
                elif isinstance(fitted := self.fits[name, nfe], Fitted):
                    methods.append(run.rival(name, nfe, fitted))
        return methods

    def _row(
        self, item: Rolled, run: SettingRun, values: Sequence[Values], latency: Latency | None
    ) -> MethodResult:
        errors = latent_errors(item.latents, run.held_out.latents)
        samples, metrics = {LATENT_MSE: errors}, [latent_metric(errors)]
        for kind in self.plan.metrics:
            if kind.name in self.metrics:
                samples[kind.name] = [sample[item.method.key][kind.name] for sample in values]
                metrics.append(summary(kind, samples[kind.name]))
        return item.result(len(self.plan.profile.branches), metrics, samples, latency)

    def frames(self, measured: Measured, policy: Artifact) -> tuple[KeptFrames | None, Mapping[str, bytes]]:
        """Return the frames of a policy in one setting, where they are to be kept, and their files."""
        if not self.plan.keep_frames:
            return None, {}
        method, result = next(item for item in measured.results if item[0].key == policy_key(policy))
        run = measured.run
        return keep_frames(
            self._decode,
            run.roll_out(method).latents,
            run.held_out.latents,
            [sample.prompt for sample in run.samples],
            result.samples,
        )

    @cached_property
    def _decode(self) -> Callable[[Tensor], Tensor]:
        return load_decoder(self.calibrated.model)

    @cached_property
    def calibrated(self) -> SettingRun:
        """The setting in which nothing is changed; rivals are fitted to it, and to no other."""
        return self._run(self.plan.settings[0])

    @cached_property
    def fits(self) -> Mapping[tuple[str, int], Fitted | CannotRun]:
        """Each rival at each budget of the policies, fitted, or why it cannot run there."""
        plan = self.plan
        budgets = sorted({artifact.document.budget.nfe for artifact in plan.policies})
        names = [name for name in plan.against if name != FEWER_STEPS]
        return {(name, nfe): self.calibrated.fit(name, nfe, plan.seed) for nfe in budgets for name in names}

    def left_out(self, nfe: int) -> list[NotMeasuredNote]:
        """Return the rivals that cannot run at so many evaluations."""
        return [
            NotMeasuredNote(name=name, reason=str(reason))
            for (name, budget), reason in self.fits.items()
            if budget == nfe and isinstance(reason, CannotRun)
        ]

    def _run(self, change: Change) -> SettingRun:
        plan = self.plan
        deployment = Deployment(change, plan.settings[0], self.binding, plan.offload)
        hire = None
        if self.workers is not None:
            hire = partial(self.workers.report, self.journal, deploy=deployment)
        return SettingRun(change, deployment(self.model), plan.steps, plan.samples, self.journal, hire)
