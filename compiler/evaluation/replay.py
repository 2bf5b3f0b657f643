"""Replay: the figures that an artifact reports, measured again on these weights.

They must agree to a relative tolerance, which the report states. On all held-out prompts, mean, worst, geometric mean
and p95 are compared. On fewer, no sample may be worse than the reported worst, and the mean must lie within
`DEVIATIONS` standard errors of the reported one; the standard error is that of so few samples.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import encode_samples, prompt_set, reference_set, stored_latents
from budc.compiler.evaluation.report import frame_levels, measure_elsewhere
from budc.compiler.evaluation.tolerance import agreed_tolerance
from budc.compiler.metrics.psnr import PSNR
from budc.compiler.metrics.summary import summary
from budc.compiler.models.adapters import check_loaded, with_adapters
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.rollouts.workers import ReportWorkers
from budc.compiler.search.space import DEFAULT_BATCH
from budc.compiler.storage.journal import Journal
from budc.policies.deployment import calibrated
from budc.policies.listed_adapters import listed_adapters
from budc.policies.profile import ModelProfile, load_profile
from budc.policies.prompt_sets import PromptSource, held_out_samples
from budc.policies.samples import Sample
from budc.progress import stage
from budc.runtimes.admission.additions import REPLAY, check_additions
from budc.runtimes.sampling.devices import find_device
from budc.runtimes.targets.registry import first_blocks_of
from budc.schema.errors import QualityMismatch, UnsupportedModel, UsageError
from budc.schema.policy import Metric, PolicyDocument
from budc.schema.printable import printable
from budc.schema.report_names import FULL

DEVIATIONS = 4.0


@dataclass(frozen=True)
class Replayed:
    """A metric as reported and as measured again."""

    reported: Metric
    measured: Metric

    @property
    def whole(self) -> bool:
        """Whether it was measured on all the prompts of the report."""
        return self.measured.samples == self.reported.samples

    @property
    def spread(self) -> float:
        """The standard error of a mean over as many samples as were measured."""
        return self.reported.standard_error * math.sqrt(self.reported.samples / self.measured.samples)

    def rule(self, tolerance: float) -> str:
        """Return by which rule the figures agree, in words."""
        if self.whole:
            return f"tolerance {100 * tolerance:g} %"
        return f"fewer prompts: within {DEVIATIONS:g} standard errors of {self.spread:.2g}, and none worse"


@dataclass(frozen=True)
class ReplayRequest:
    """What to measure again: a policy, on the model in `folder`."""

    document: PolicyDocument
    folder: Path
    samples: int | None = None
    """On how many of the held-out prompts; default all."""
    tolerance: float | None = None
    """Relative; default the report's own."""
    profile: ModelProfile | None = None
    """Of the model, with the prompts of the report; default the shipped one."""
    prompts: Path | None = None
    """The file of the held-out prompts, where they are not the profile's."""
    device: str | None = None
    """A name of torch's; default the accelerator."""
    lora: Sequence[str] = ()
    """The adapters that the policy was made with, as `adapter_files` reads them."""


Hire = Callable[[LoadedModel, Conditioning, Journal], ReportWorkers]
"""Returns other processes that measure on a model's prompts."""


def replay(request: ReplayRequest, hire: Hire | None = None) -> list[Replayed]:
    """Measure the policy's held-out figures again. With `hire` other processes roll out and decode.

    Raises:
        UsageError: `tolerance` is laxer than the report's own, the report was not measured on `prompts`, there is no
            such device, or the policy's adapters are not given.
        CalibrationMismatch: adapters are given that the policy was not made with, see `listed_adapters`.
        UnsupportedVersion: the policy uses what cannot be computed here.
        UnsupportedModel: the prompts that the figures were measured with are not here.
        QualityMismatch: a figure differs.
    """
    document = request.document
    check_additions(document, REPLAY)
    report, device = document.quality, find_device(request.device)
    tolerance = agreed_tolerance(report, request.tolerance)
    adapters = listed_adapters(document, request.lora)
    profile, held_out = _measured_on(document, request.profile, request.prompts)
    full_steps = next((item.nfe for item in report.baselines if item.name == FULL), document.sampler.steps)
    stage("load", printable(profile.title))
    model = load_model(profile, request.folder, device)
    if adapters:
        check_loaded(document.model, with_adapters(model, document.model, adapters))
    chosen = held_out[: request.samples or len(held_out)]
    jobs = 1 if hire is None else DEFAULT_BATCH
    with (
        tempfile.TemporaryDirectory(prefix="budc-replay-") as name,
        Journal(Path(name), "replay", jobs) as journal,
    ):
        conditions = encode_samples(model, chosen)
        workers = None if hire is None else hire(model, conditions, journal)
        rollout = PipelineRollout(model, first_blocks=first_blocks_of(document), workers=workers)
        held = reference_set(rollout, model.sampler(full_steps), chosen, journal, "reference", conditions)
        latents = stored_latents(
            rollout, document.policy, document.sampler, held.conditions, journal, "policy"
        )
        metrics = [latent_metric(latent_errors(latents, held.latents))]
        if any(metric.name == PSNR.name for metric in report.metrics):
            if workers is not None:
                measure_elsewhere(workers, {PSNR.name: latents}, held.latents, journal, "frames")
            levels = frame_levels(model, {PSNR.name: latents}, held.latents, journal, "frames")
            metrics.append(summary(PSNR, levels[PSNR.name]))
    measured = {metric.name: metric for metric in metrics}
    pairs = [Replayed(metric, measured[metric.name]) for metric in report.metrics if metric.name in measured]
    for pair in pairs:
        check(pair, tolerance, whole=len(chosen) == len(held_out))
    return pairs


def _measured_on(
    document: PolicyDocument, profile: ModelProfile | None, prompts: Path | None
) -> tuple[ModelProfile, tuple[Sample, ...]]:
    """Return the profile and the samples that a report was measured with. Raises UsageError, UnsupportedModel."""
    report = document.quality.held_out
    try:
        profile = calibrated(profile or load_profile(document.pipeline().profile), document)
        held_out = held_out_samples(profile, PromptSource(prompts, report.size))
    except UsageError as error:
        if prompts is not None:
            raise
        raise UnsupportedModel(f"the report of {document.name} cannot be replayed: {error}") from error
    if prompt_set(held_out) == report:
        return profile, held_out
    if prompts is not None:
        raise UsageError(
            f"--held-out: the report of {document.name} was not measured on the first {report.size} of {prompts}",
            remedy="give the file that it was compiled with, unchanged",
        )
    raise UnsupportedModel(
        f"the report of {document.name} was measured on other prompts than {profile.name} has here",
        remedy="--held-out FILE, or --model PROFILE.toml, with the prompts that it was compiled with",
    )


def check(pair: Replayed, tolerance: float, *, whole: bool) -> None:
    """Compare a measured metric with the reported one. Raises QualityMismatch."""
    reported, measured = pair.reported, pair.measured
    if whole:
        for field in ("mean", "worst", "geometric_mean", "p95"):
            said, gives = getattr(reported, field), getattr(measured, field)
            if said is not None and gives is not None and not math.isclose(said, gives, rel_tol=tolerance):
                raise QualityMismatch(
                    f"{reported.name}: the report says {field} {said:.6g}, these weights give {gives:.6g}"
                )
        return
    lower_is_better = reported.worst >= reported.mean
    beyond = measured.worst - reported.worst if lower_is_better else reported.worst - measured.worst
    if beyond > tolerance * abs(reported.worst):
        raise QualityMismatch(
            f"{reported.name}: the report says that no sample is worse than {reported.worst:.6g}, "
            f"one is {measured.worst:.6g}"
        )
    if abs(measured.mean - reported.mean) > DEVIATIONS * pair.spread + tolerance * abs(reported.mean):
        raise QualityMismatch(
            f"{reported.name}: the report says mean {reported.mean:.6g}, {measured.samples} samples give "
            f"{measured.mean:.6g}"
        )
