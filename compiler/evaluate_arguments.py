"""What a user hands to `budc.evaluate` beside a run: rivals, samples to fit them on, the schedule of the full run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from budc.compiler.api_inputs import noise_schedule
from budc.compiler.api_samples import calibration_samples, prompt_set
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.network.admission import Admitted
from budc.compiler.network.compiled import Compiled
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.runtimes.admission.trust import Source
from budc.schema.arguments import described
from budc.schema.errors import UsageError
from budc.schema.evaluation_rules import full_steps
from budc.schema.report_names import FEWER_STEPS, UNIFORM

_SIGMAS = "pass sigmas=, those that it was compiled on (and timesteps=, if there were some)"


def listed(against: Any) -> str | None:
    """Return names as `choose_rivals` reads them. Raises UsageError: they are no names."""
    if against is None or isinstance(against, str):
        return against
    if not isinstance(against, Sequence) or not all(isinstance(name, str) for name in against):
        raise UsageError(
            f"against: {described(against)} names no rivals",
            remedy='pass names such as ["fewer-steps", "uniform"]',
        )
    return ",".join(against) or "none"


def samples_to_fit(calibration: Any, samples: Conditioning, names: Sequence[str]) -> Conditioning | None:
    """Return the samples that rivals are fitted on. Raises UsageError: there are none, and they are needed."""
    fitted_on = calibration_samples(calibration, samples)
    fitted = [name for name in names if name not in (FEWER_STEPS, UNIFORM)]
    if fitted and fitted_on is None:
        raise UsageError(
            f"against: {', '.join(fitted)} must be fitted, and there are no samples to fit on",
            remedy="pass calibration=(conditioning, noise), of samples that are not measured on",
        )
    return fitted_on


def full_schedule(
    policy: Source | Compiled, run: Admitted, scheduler: Any, sigmas: Any, timesteps: Any
) -> NoiseSchedule:
    """Return the schedule of the full run. Raises UsageError: it is not known, or not the policy's."""
    document = run.expected.document
    if isinstance(policy, Compiled):
        searched = policy.origin.schedule
        schedule = NoiseSchedule.of(scheduler, searched.sigmas, searched.timesteps)
        steps = schedule.steps
    else:
        assert document is not None
        schedule = NoiseSchedule.of(scheduler, run.sigmas, run.timesteps)
        steps = full_steps(document)
    if sigmas is not None:
        schedule = noise_schedule(scheduler, sigmas, timesteps)
    elif timesteps is not None:
        raise UsageError("timesteps: they go with sigmas", remedy=_SIGMAS)
    elif document is not None and (
        steps != schedule.steps or document.search.settings.get("aligned") is True
    ):
        raise UsageError(
            f"sigmas: {document.name} has sigmas of its own, and does not say those of the full run",
            remedy=_SIGMAS,
        )
    if schedule.steps != steps:
        raise UsageError(
            f"sigmas: they have {schedule.steps} steps, the policy was searched on {steps}", remedy=_SIGMAS
        )
    return schedule


def check_samples(policy: Source | Compiled, run: Admitted, samples: Conditioning) -> None:
    """Refuse to measure on the samples that the policy was searched on. Raises UsageError."""
    document = run.expected.document
    if isinstance(policy, Compiled):
        searched = policy.origin.calibration
    else:
        assert document is not None
        searched = document.quality.calibration
    if prompt_set(samples).digest == searched.digest:
        raise UsageError(
            "conditioning, noise: they are the samples that the policy was searched on",
            remedy="measure on samples that were held out",
        )
