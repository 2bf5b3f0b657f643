"""What the user asks of an evaluation, resolved before a framework is imported.

plan = EvaluateRequest(policies=(open_artifact(path, trust),), out=Path("out"), under=("scheduler=euler",)).resolve()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from budc.compiler.cluster import Cluster, parse_cluster
from budc.compiler.comparison.changes import Change, parse_changes
from budc.compiler.comparison.rivals import choose_rivals
from budc.compiler.metrics import MetricKind, choose_metrics
from budc.compiler.models.fit import check_fit
from budc.compiler.models.supported import check_supported
from budc.compiler.search.space import DEFAULT_BATCH
from budc.option_names import option
from budc.policies.adapter_files import AdapterFile
from budc.policies.artifact_profile import profile_of
from budc.policies.deployment import calibrated
from budc.policies.listed_adapters import listed_adapters
from budc.policies.profile import ModelProfile, find_weights
from budc.policies.prompt_sets import PromptSource, SampleSets, read_samples
from budc.runtimes.admission.additions import EVALUATE, check_additions
from budc.schema.artifact import Artifact
from budc.schema.errors import OutputError, UsageError
from budc.schema.evaluation_rules import full_steps
from budc.schema.policy import PolicyDocument
from budc.schema.report_names import CALIBRATED

_RANGES = {
    "samples": (1, 1 << 14),
    "calibration_size": (1, 1 << 20),
    "repeats": (0, 1000),
    "seed": (0, 2**53 - 1),
    "batch": (1, 1024),
}


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What an evaluation measures."""

    policies: tuple[Artifact, ...]
    profile: ModelProfile
    """As the policies were calibrated."""
    steps: int
    """Of the full run."""
    folder: Path
    samples: SampleSets
    settings: tuple[Change, ...]
    against: tuple[str, ...]
    metrics: tuple[MetricKind, ...]
    metric_weights: Path | None
    keep_frames: bool
    """Whether frames of some prompts are kept, in the calibrated setting."""
    repeats: int
    seed: int
    out: Path
    device: str | None
    offload: Literal["model", "group"]
    rehash: bool
    cluster: Cluster | None = None
    """The Ray cluster whose workers compute; None for this process alone."""
    batch: int = 1
    """Pieces that a prompt set is cut into at least."""


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """One evaluation of policies that are for the same model, in the setting that they were calibrated in."""

    policies: tuple[Artifact, ...]
    out: Path
    model: str | None = None
    weights: Path | None = None
    prompts: Path | None = None
    """What is measured on; default the profile's held-out prompts."""
    samples: int | None = None
    """How many of them; default all of a file, or as many as the profile says of its own."""
    calibration: Path | None = None
    """What rivals are fitted on; default the profile's calibration prompts."""
    calibration_size: int | None = None
    metrics: str | None = None
    metric_weights: Path | None = None
    """A folder of each metric's own folder of weights; without one, metrics that need weights are not measured."""
    no_frames: bool = False
    """Decode nothing: latent errors alone."""
    keep_frames: bool = False
    """Keep frames of the best, the median and the worst prompt."""
    against: str | None = None
    under: tuple[str, ...] = ()
    lora: tuple[str, ...] = ()
    """The adapters that the policies were made with, as `adapter_files` reads them."""
    repeats: int = 5
    """Timed rounds; 0 for none."""
    seed: int = 0
    """Of rivals that search."""
    device: str | None = None
    offload: Literal["model", "group"] = "model"
    rehash: bool = False
    ray: str | None = None
    """The Ray cluster whose workers compute, as `parse_cluster` reads it; default this process alone."""
    workers: int | None = None
    gpus_per_worker: float | None = None
    batch: int | None = None
    """Pieces that a prompt set is cut into at least; default one, with a cluster eight."""

    def resolve(self) -> EvaluationPlan:
        """Return the plan, with everything refused that can be without loading the model.

        Raises:
            UsageError: the policies do not go together, or an option makes no sense for them.
            UnsupportedVersion, UnsupportedModel: a policy cannot be evaluated here.
            OutputError, WeightsMissing: the folder cannot be written, or the weights are not here.
        """
        self._check_numbers()
        cluster = parse_cluster(self.ray, self.workers, self.gpus_per_worker)
        profile, steps = self._calibrated()
        check_supported(profile)
        setting = Change(CALIBRATED, profile, adapters=self._adapters())
        settings = (setting, *parse_changes(self.under, setting))
        against = choose_rivals(self.against, profile)
        metrics = self._metrics(settings)
        samples = read_samples(
            profile,
            PromptSource(self.calibration, self.calibration_size),
            PromptSource(self.prompts, self.samples),
        )
        folder = find_weights(profile, self.weights)
        for change in settings:
            check_fit(change.profile, folder)
        self._check_out()
        return EvaluationPlan(
            policies=self.policies,
            profile=profile,
            steps=steps,
            folder=folder,
            samples=samples,
            settings=settings,
            against=against,
            metrics=metrics,
            metric_weights=self.metric_weights,
            keep_frames=self.keep_frames,
            repeats=self.repeats,
            seed=self.seed,
            out=self.out,
            device=self.device,
            offload=self.offload,
            rehash=self.rehash,
            cluster=cluster,
            batch=self.batch or (1 if cluster is None else DEFAULT_BATCH),
        )

    def _check_numbers(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{option(name.replace('_', '-'))}: is {value}, expected {low} to {high}")

    def _calibrated(self) -> tuple[ModelProfile, int]:
        """Return the profile and the steps of the full run that all policies were calibrated with."""
        first, *others = (self._setting_of(artifact.document) for artifact in self.policies)
        names = [artifact.document.name for artifact in self.policies]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"{name}: two policies have this name", remedy="evaluate them one by one")
        for name, other in zip(names[1:], others, strict=True):
            for field in ModelProfile.__struct_fields__:
                mine, its = getattr(first[0], field), getattr(other[0], field)
                if mine != its:
                    raise UsageError(
                        f"{name} was calibrated with another {field} than {names[0]}: {its}, not {mine}",
                        remedy="evaluate them in separate commands",
                    )
            if first[1] != other[1]:
                raise UsageError(
                    f"{name} was measured against {other[1]} steps, {names[0]} against {first[1]}",
                    remedy="evaluate them in separate commands",
                )
        return first

    def _setting_of(self, document: PolicyDocument) -> tuple[ModelProfile, int]:
        check_additions(document, EVALUATE)
        profile = calibrated(profile_of(document, self.model), document)
        return profile, full_steps(document)

    def _adapters(self) -> tuple[AdapterFile, ...]:
        """Return the adapters of the policies, each of which must be made with all of them."""
        (adapters, *_) = (listed_adapters(artifact.document, self.lora) for artifact in self.policies)
        return adapters

    def _metrics(self, settings: Sequence[Change]) -> tuple[MetricKind, ...]:
        if self.no_frames:
            needs_frames = {
                "metrics": self.metrics is not None,
                "metric-weights": self.metric_weights is not None,
                "keep-frames": self.keep_frames,
            }
            for name, given in needs_frames.items():
                if given:
                    raise UsageError(
                        f"{option('no-frames')}: {option(name)} needs frames", remedy="leave out one of them"
                    )
            return ()
        if self.metric_weights is not None and not self.metric_weights.is_dir():
            raise UsageError(
                f"{option('metric-weights')}: {self.metric_weights} is no folder",
                remedy="name the folder that holds lpips/, clip-score/ and the like; docs/metrics.md",
            )
        chosen = [choose_metrics(self.metrics, change.profile.frames) for change in settings]
        common = [kind for kind in chosen[0] if all(kind in others for others in chosen)]
        return tuple(common)

    def _check_out(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{option('out')}: {self.out} cannot be made: {error.strerror}",
                remedy="name a folder of your own",
            ) from error


def settings_of(plan: EvaluationPlan) -> dict[str, object]:
    """Return what every measurement of a plan depends on, but for the model's files."""
    return {
        "profile": msgspec.to_builtins(plan.profile),
        "steps": plan.steps,
        "samples": msgspec.to_builtins(plan.samples),
        "seed": plan.seed,
        "offload": plan.offload,
        **({"batch": plan.batch} if plan.batch > 1 else {}),
    }
