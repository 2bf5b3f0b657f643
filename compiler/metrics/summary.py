"""A metric over the samples of a report: mean, standard error, worst."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from budc.compiler.metrics.kind import MetricKind
from budc.compiler.rollouts.metrics import standard_error
from budc.schema.policy import Metric


def summary(kind: MetricKind, values: Sequence[float]) -> Metric:
    """Summarise a metric's values, one for each sample; the worst is the lowest where higher is better."""
    return Metric(
        name=kind.name,
        unit=kind.unit,
        mean=fmean(values),
        standard_error=standard_error(values),
        worst=kind.worst(values),
        samples=len(values),
    )
