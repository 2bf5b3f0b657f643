"""What each effort and the paper's search measured, from rows of a draw of prompts (`quality_methods.draws`)."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from quality_methods.tables import Row

Rows = Mapping[tuple[str, int, str], Sequence[Row]]
"""Model, budget and method -> rows, one for each seed."""


def grouped(rows: Iterable[Row], draw: int = 0) -> Rows:
    """Return the rows of one draw by model, budget and method."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        if row.get("draw", 0) == draw:
            groups.setdefault((row["model"], row["budget"], row["method"]), []).append(row)
    return groups


def draws_of(rows: Sequence[Row]) -> list[Rows]:
    """Return the rows of the first draw, even if there are none, and of each later one."""
    return [grouped(rows, draw) for draw in sorted({0, *(row.get("draw", 0) for row in rows)})]


def geometric(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the geometric means over the seeds of error and forwards, rollouts not shared."""
    errors = statistics.geometric_mean(row["error"]["geometricMean"] for row in rows)
    return errors, statistics.geometric_mean(row["searchForwardsUnshared"] for row in rows)


def measured(groups: Rows) -> str:
    """Return the table of errors and forwards of every search, one row a model and budget."""
    columns = {
        "paper's, one prompt": "paper-one",
        "paper's, 32 prompts": "paper",
        "`fast`": "joint-fast",
        "`balanced`": "joint-balanced",
        "`thorough`": "joint",
        "`thorough --align`": "joint-align",
    }
    lines = [f"| model, NFE | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for model, budget in cells_of(groups):
        found = [groups.get((model, budget, method)) for method in columns.values()]
        figures = [shown(None if rows is None else geometric(rows)) for rows in found]
        lines.append(f"| `{model}`, {budget} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def shown(figures: tuple[float, float] | None) -> str:
    """Return error and forwards as a cell."""
    return "not run" if figures is None else "{:#.2g}, {:,.0f}".format(*figures)


def cells_of(groups: Rows) -> list[tuple[str, int]]:
    """Return models and budgets: models in the order of the rows, budgets ascending."""
    models = list(dict.fromkeys(model for model, _, _ in groups))
    return sorted({cell[:2] for cell in groups}, key=lambda cell: (models.index(cell[0]), cell[1]))
