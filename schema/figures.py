"""Plausibility of a quality report: figures that no measurement can give are refused.

1. No metric has more samples than the held-out set has prompts.
2. `mean` and `p95` are not on different sides of `worst`. A `latent-mse` is never negative and its worst is the
   largest value; the worst `psnr` is the smallest one.
3. `geometricMean` is neither negative nor above the mean.
4. The baseline `full` compares the full run with itself: at least as many evaluations as the budget, and no
   latent error.

Each report of a document is judged by itself, those of further shapes too. Whether plausible figures are true is not
judged here: `budc verify --replay` measures them again.
"""

from collections.abc import Iterator

from budc.schema.additions import reports
from budc.schema.errors import SemanticsViolation
from budc.schema.policy import Metric, PolicyDocument, Quality
from budc.schema.report_names import FULL, LATENT_MSE, PSNR

_ROUNDING = 1e-9
"""Relative tolerance: the mean of equal values may differ from them by rounding."""
_DIRECTIONS = {LATENT_MSE: False, PSNR: True}
"""Metric -> whether higher is better, as far as the format of policies says."""


def check_figures(document: PolicyDocument) -> None:
    """Check all rules of this module. Raises SemanticsViolation, which names the field."""
    for where, quality in reports(document):
        _check_report(where, quality, document.budget.nfe)


def _check_report(where: str, quality: Quality, nfe: int) -> None:
    for index, baseline in enumerate(quality.baselines):
        if baseline.name != FULL:
            continue
        if baseline.nfe < nfe:
            raise SemanticsViolation(
                f"{where}.baselines[{index}] is a full run of {baseline.nfe} evaluations, "
                f"fewer than the budget of {nfe}"
            )
        for metric in baseline.metrics:
            if metric.name == LATENT_MSE and metric.worst != 0:
                raise SemanticsViolation(
                    f"{where}.baselines[{index}] says that the full run differs from itself by {metric.worst:g}"
                )
    for place, metric in _metrics(where, quality):
        check_metric(place, metric, quality.held_out.size, _DIRECTIONS.get(metric.name))


def _metrics(where: str, quality: Quality) -> Iterator[tuple[str, Metric]]:
    for index, metric in enumerate(quality.metrics):
        yield f"{where}.metrics[{index}] ({metric.name})", metric
    for row, baseline in enumerate(quality.baselines):
        for index, metric in enumerate(baseline.metrics):
            yield f"{where}.baselines[{row}].metrics[{index}] ({metric.name})", metric


def check_metric(where: str, metric: Metric, prompts: int, higher_is_better: bool | None) -> None:
    """Check rules 1 to 3 for one metric; `higher_is_better` is None where nobody knows.

    Raises:
        SemanticsViolation: one does not hold; the message begins with `where`.
    """
    if metric.samples > prompts:
        raise SemanticsViolation(f"{where} has {metric.samples} samples of {prompts} held-out prompts")
    others = [value for value in (metric.mean, metric.p95) if value is not None]
    if metric.name == LATENT_MSE and min(*others, metric.worst) < 0:
        raise SemanticsViolation(f"{where} is negative, which no squared error is")
    above = [value for value in others if exceeds(value, metric.worst)]
    below = [value for value in others if exceeds(metric.worst, value)]
    plausible = {False: not above, True: not below, None: not (above and below)}
    if not plausible[higher_is_better]:
        raise SemanticsViolation(f"{where}: worst is {metric.worst:g}, but mean or p95 is worse than that")
    if metric.geometric_mean is not None and not (
        metric.geometric_mean >= 0 and not exceeds(metric.geometric_mean, metric.mean)
    ):
        raise SemanticsViolation(
            f"{where}: geometricMean is {metric.geometric_mean:g}, which no values of mean {metric.mean:g} have"
        )


def exceeds(value: float, other: float) -> bool:
    """Whether a value is above another by more than rounding."""
    return value > other + _ROUNDING * max(abs(value), abs(other))
