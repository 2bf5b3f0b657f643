"""What a metric is called in a figure, and which way it is better."""

from __future__ import annotations

from typing import NamedTuple

from budc.compiler.metrics import METRICS
from budc.schema.policy import Metric
from budc.schema.report_names import LATENT_MSE


class MetricLabel(NamedTuple):
    """How a metric is shown."""

    title: str
    unit: str
    higher_is_better: bool | None
    """None for a metric that budc does not know."""
    logarithmic: bool = False

    @property
    def note(self) -> str:
        """Which way is better, in words."""
        if self.higher_is_better is None:
            return ""
        return "higher is better" if self.higher_is_better else "lower is better"


def metric_label(name: str, unit: str | None = None) -> MetricLabel:
    """Return how the metric of this name is shown; `unit` is what a file says."""
    if name == LATENT_MSE:
        return MetricLabel(LATENT_MSE, unit or "", higher_is_better=False, logarithmic=True)
    kind = METRICS.get(name)
    if kind is None:
        return MetricLabel(name, unit or "", higher_is_better=None)
    return MetricLabel(kind.title, kind.unit or unit or "", kind.higher_is_better)


def shown_value(metric: Metric) -> float:
    """Return the value that stands for a metric: the geometric mean of errors, the mean of others."""
    return metric.mean if metric.geometric_mean is None else metric.geometric_mean
