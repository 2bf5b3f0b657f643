"""The rows of an evaluation, by their methods."""

from budc.schema.evaluation import EvaluationDocument, MethodResult


def methods(document: EvaluationDocument, setting: str = "calibrated") -> dict[str, MethodResult]:
    """Return the methods that were measured under a setting, by name."""
    return {method.name: method for method in document.setting(setting).methods}


def mean(method: MethodResult, name: str = "latent-mse") -> float:
    """Return a metric's mean."""
    return next(metric.mean for metric in method.metrics if metric.name == name)
