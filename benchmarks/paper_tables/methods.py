"""The main table, for images and for clips: budc and other methods at each budget, with speed-up and metrics of frames.

Policies are compiled with `joint`, without and with `--align`; `budc evaluate` measures them and the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from budc.compiler.evaluate import evaluate
from budc.compiler.evaluate_request import EvaluateRequest
from budc.schema.artifact import Artifact
from budc.schema.evaluation import EvaluationDocument, MethodResult
from budc.schema.report_names import FULL, LATENT_MSE, METRIC_TITLES, POLICY
from paper_tables.asked import Asked, Row
from paper_tables.markdown import figure, table

SEARCHES = {"joint": {}, "joint-align": {"align": True}}
"""Label of a policy -> how it is compiled."""
TITLES = {"joint": "**budc**, `joint`", "joint-align": "**budc**, `joint --align`"}


def measure(asked: Asked) -> Iterator[Row]:
    """Yield a row for each budget, setting and method."""
    searched = {
        (nfe, label): asked.compiled(nfe, label, **choices)
        for nfe in asked.budgets
        for label, choices in SEARCHES.items()
    }
    documents = dict(zip(searched, evaluated(asked, list(searched.values())), strict=True))
    for nfe in asked.budgets:
        yield from rows(nfe, {label: documents[nfe, label] for label in SEARCHES})


def evaluated(asked: Asked, policies: Sequence[Artifact]) -> list[EvaluationDocument]:
    """Measure policies as `budc evaluate` does, beside the other methods."""
    request = EvaluateRequest(
        policies=tuple(policies),
        out=asked.folder,
        model=asked.model,
        weights=asked.weights,
        samples=asked.held_out,
        calibration_size=asked.calibration,
        metrics=asked.metrics,
        against=asked.against,
        under=asked.under,
        repeats=asked.repeats,
        device=asked.device,
    )
    return [measured.document for measured in evaluate(request.resolve())]


def rows(nfe: int, documents: dict[str, EvaluationDocument]) -> Iterator[Row]:
    """Yield the rows of one budget: the policy of each document by its label, and the other methods once."""
    for index, (label, document) in enumerate(documents.items()):
        for setting in document.settings:
            for method in setting.methods:
                if method.name == POLICY or index == 0:
                    own = method.name == POLICY
                    name, title = (label, TITLES[label]) if own else (method.name, method.title)
                    yield {"budget": nfe, "setting": setting.name, "method": name, "title": title} | _row(
                        method
                    )


def _row(method: MethodResult) -> Row:
    return {
        "nfe": method.nfe,
        "seconds": method.latency.median if method.latency else None,
        "fittingForwards": method.fitting_forwards,
        "metrics": {
            metric.name: {
                "mean": metric.mean,
                "standardError": metric.standard_error,
                "worst": metric.worst,
                "geometricMean": metric.geometric_mean,
            }
            for metric in method.metrics
        },
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return a table for each budget, the smallest latent error first."""
    text = ""
    for nfe in dict.fromkeys(row["budget"] for row in rows):
        text += f"\nNFE {nfe}:\n\n" + of_cell([row for row in rows if row["budget"] == nfe])
    return text.lstrip("\n")


def of_cell(rows: Sequence[Row]) -> str:
    """Return the methods of one budget and setting as a table."""
    (full,) = [row for row in rows if row["method"] == FULL]
    names = [name for name in rows[0]["metrics"] if name != LATENT_MSE]
    titles = [METRIC_TITLES[name] for name in names]
    heads = [
        "method",
        "NFE",
        "speed-up",
        "latent error",
        *titles,
        *(f"worst {title}" for title in titles[:1]),
    ]
    others = [row for row in rows if row is not full]
    return table(heads, [_cells(row, full, names) for row in sorted(others, key=error)])


def error(row: Row) -> float:
    """Return the geometric mean of a row's latent errors."""
    return float(row["metrics"][LATENT_MSE]["geometricMean"])


def _cells(row: Row, full: Row, names: Sequence[str]) -> list[str]:
    timed = row["seconds"] and full["seconds"]
    means = [f"{row['metrics'][name]['mean']:.4g}" for name in names]
    worst = [f"{row['metrics'][names[0]]['worst']:.4g}"] if names else []
    speed = f"{full['seconds'] / row['seconds']:.2f}x" if timed else ""
    return [row["title"], f"{row['nfe']:.4g}", speed, figure(error(row)), *means, *worst]
