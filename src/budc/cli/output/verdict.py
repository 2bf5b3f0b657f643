"""What a policy is worth, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from budc.cli.output.tables import number
from budc.schema.evaluation_rules import full_steps
from budc.schema.printable import printable
from budc.schema.report_names import CALIBRATED, FEWER_STEPS, FULL, LATENT_MSE, POLICY, PSNR, UNIFORM

if TYPE_CHECKING:
    from budc.schema.evaluation import EvaluationDocument
    from budc.schema.policy import Baseline, Metric, PolicyDocument


def verdict(document: PolicyDocument, evaluations: Sequence[EvaluationDocument] = (), speed: str = "") -> str:
    """Return what a policy is worth by its own report, and how much faster its loop was where that was measured.

    That is `speed`, a text that begins as one of `speed_up`, or what the first evaluation says that has times.

    For example "10 of 50 evaluations: PSNR 39.7 dB (worst 27.1), 7.4 dB ahead of 10 plain steps; the loop took 2.3
    times less on this CPU".
    """
    if document.budget.nfe == full_steps(document):
        return f"{_budget(document)}: every step is computed, as in the full run"
    sentence = f"{_budget(document)}: {_quality(document)}"
    speed = speed or next(filter(None, map(measured_speed, evaluations)), "")
    return printable(f"{sentence}; {speed}" if speed else sentence)


def _budget(document: PolicyDocument) -> str:
    return f"{document.budget.nfe} of {full_steps(document)} evaluations"


def _quality(document: PolicyDocument) -> str:
    report = document.quality
    own = {metric.name: metric for metric in report.metrics}
    rival = _rival(report.baselines, document.budget.nfe)
    if PSNR in own:
        unit = own[PSNR].unit or "dB"
        text = f"PSNR {own[PSNR].mean:.1f} {unit} (worst {own[PSNR].worst:.1f})"
        return text + (_ahead_by(own[PSNR], rival, unit) if rival else "")
    if LATENT_MSE in own:
        error = own[LATENT_MSE]
        value = error.mean if error.geometric_mean is None else error.geometric_mean
        text = f"{LATENT_MSE} {number(value)} (worst {number(error.worst)})"
        return text + (_times_less(value, rival) if rival else "")
    return "its quality was not measured"


def _rival(baselines: Sequence[Baseline], nfe: int) -> Baseline | None:
    """Return what a policy is compared with: as many plain steps, else a uniform mask."""
    rivals = {item.name: item for item in baselines if item.nfe == nfe}
    return rivals.get(FEWER_STEPS) or rivals.get(UNIFORM)


def _title(rival: Baseline) -> str:
    return f"{rival.nfe} plain steps" if rival.name == FEWER_STEPS else "a uniform mask"


def _ahead_by(own: Metric, rival: Baseline, unit: str) -> str:
    other = next((metric for metric in rival.metrics if metric.name == own.name), None)
    if other is None:
        return ""
    difference = own.mean - other.mean
    if abs(difference) <= math.hypot(own.standard_error, other.standard_error):
        return f", no different from {_title(rival)} within the standard error"
    return f", {abs(difference):.1f} {unit} {'ahead of' if difference > 0 else 'behind'} {_title(rival)}"


def _times_less(value: float, rival: Baseline) -> str:
    other = next((metric.geometric_mean for metric in rival.metrics if metric.name == LATENT_MSE), None)
    if not other or not value:
        return ""
    ratio = max(other / value, value / other)
    return f", {ratio:.2g} times {'less' if value <= other else 'more'} than {_title(rival)}"


def measured_speed(evaluation: EvaluationDocument) -> str:
    """Return how a policy's loop compares with the full run's by an evaluation; an empty text where it has no times."""
    setting = evaluation.setting(CALIBRATED)
    if setting is None:
        return ""
    taken = {method.name: method.latency.median for method in setting.methods if method.latency}
    if FULL not in taken or POLICY not in taken:
        return ""
    return speed_up(taken[FULL], taken[POLICY], evaluation.device)


def speed_up(full: float, policy: float, device: str) -> str:
    """Return how the seconds of a policy's denoising loop compare with those of the full run's, on a device."""
    ratio = full / policy
    if 0.95 < ratio < 1.05:
        return f"the loop took as long as that of the full run on {device}"
    how = f"{ratio:.2g} times less" if ratio >= 1 else f"{1 / ratio:.2g} times more"
    return f"the loop took {how} on {device}"
