"""What an evaluation measured, as a page of text or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.cli.output.tables import MISSING, fields, table
from budc.schema.errors import printable

if TYPE_CHECKING:
    from budc.schema.evaluation import EvaluationDocument, MethodResult, SettingResult
    from budc.schema.policy import Metric


def page(document: EvaluationDocument, path: Path) -> str:
    """Return an evaluation as a page of text: a table for each setting."""
    prompts = document.settings[0].prompts.size
    pairs = [
        ("wrote", printable(str(path))),
        ("policy", printable(f"{document.policy_name}, {document.policy}")),
        ("measured", printable(f"{prompts} prompts on {document.device}")),
        *(("not", printable(f"{note.name}: {note.reason}")) for note in document.not_measured),
    ]
    return "\n\n".join([fields(pairs), *(_setting(setting) for setting in document.settings)])


def record(document: EvaluationDocument, path: Path) -> dict[str, object]:
    """Return an evaluation as one JSON object."""
    import msgspec

    return {"path": str(path), **msgspec.to_builtins(document)}


def _setting(setting: SettingResult) -> str:
    names = [metric.name for metric in setting.methods[0].metrics]
    headers = ["method", "NFE", "seconds", *names, *(f"{name} worst" for name in names)]
    rows = [
        [
            method.title,
            f"{method.nfe:.4g}",
            MISSING if method.latency is None else f"{method.latency.median:.3g}",
            *(_mean(_metric(method, name)) for name in names),
            *(_number(_metric(method, name).worst) for name in names),
        ]
        for method in setting.methods
    ]
    shape = setting.shape
    frames = "" if shape.frames == 1 else f", {shape.frames} frames"
    where = (
        f"{setting.name}: {setting.scheduler}, {setting.steps} steps, {shape.height} × {shape.width}{frames}"
    )
    return f"{printable(where)}\n{table(headers, rows)}"


def _metric(method: MethodResult, name: str) -> Metric:
    return next(metric for metric in method.metrics if metric.name == name)


def _mean(metric: Metric) -> str:
    return f"{_number(metric.mean)} ± {metric.standard_error:.2g}"


def _number(value: float) -> str:
    return f"{value:.4g}"
