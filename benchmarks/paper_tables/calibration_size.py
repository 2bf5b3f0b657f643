"""Calibration: the error over the number of prompts that are searched on, of `joint` and of the paper's search."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import calibration
from quality_methods.outcome import run_fitted

from budc.compiler.comparison.paper_search import paper
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.schema.files import write_atomic
from paper_tables.asked import Asked, Row
from paper_tables.markdown import figure, table


def measure(asked: Asked) -> Iterator[Row]:
    """Yield a row for each budget and number of prompts."""
    for nfe in asked.budgets:
        for size in asked.sizes:
            path = asked.folder / f"row-{nfe}-on-{size}.json"
            if not path.is_file():
                write_atomic(path, json.dumps(_row(asked, nfe, size)).encode())
            row: Row = json.loads(path.read_text(encoding="utf-8"))
            yield row


def _row(asked: Asked, nfe: int, size: int) -> Row:
    setting = asked.setting(calibration=size)
    searched = run_fitted(setting, paper(setting, nfe, 0, asked.folder / f"paper-{nfe}-on-{size}"))
    errors = latent_metric(latent_errors(searched.latents, setting.held_out.run.latents))
    return {
        "budget": nfe,
        "calibration": size,
        "joint": calibration.measure(setting, nfe, size, asked.effort),
        "paper": {"geometricMean": errors.geometric_mean, "p95": errors.p95, "forwards": searched.forwards},
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return a table for each budget."""
    text = ""
    for nfe in dict.fromkeys(row["budget"] for row in rows):
        heads = ["prompts", "`joint`", "95th pct", "forwards", "paper's search", "95th pct", "forwards"]
        lines = []
        for row in (row for row in rows if row["budget"] == nfe):
            joint, searched = row["joint"]["error"], row["paper"]
            cells = [joint["geometricMean"], joint["p95"]], [searched["geometricMean"], searched["p95"]]
            spent = row["joint"]["searchForwards"], searched["forwards"]
            own, others = ([*map(figure, pair), f"{cost:,}"] for pair, cost in zip(cells, spent, strict=True))
            lines.append([str(row["calibration"]), *own, *others])
        text += f"\nNFE {nfe}:\n\n" + table(heads, lines)
    return text.lstrip("\n")
