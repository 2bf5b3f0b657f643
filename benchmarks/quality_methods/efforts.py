"""The efforts against each other and against the paper's search, from rows.

An effort is compared with `thorough` on every draw of prompts that both were run on (`quality_methods.draws`): on one
draw, chance decides which of two masks has the lower error.
"""

from __future__ import annotations

import statistics
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from quality_methods.paired import Paired, by_mean, log_errors
from quality_methods.tables import Row

EFFORTS = {"fast": "joint-fast", "balanced": "joint-balanced"}
"""Efforts that are compared with `thorough`, and their methods."""

LIMITS = {"fast": 1.25, "balanced": 1.05}
"""The most that an effort's error may be of `thorough`'s to take its place."""

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


class Compared(NamedTuple):
    """An effort in one cell: its error over `thorough`'s, on all draws and on each, and its forwards over those of the
    paper's search on one prompt, where that was run.
    """

    error: Paired
    draws: tuple[float, ...]
    forwards: float | None

    @property
    def shown(self) -> str:
        """As cells of the table."""
        draws = ", ".join(f"{ratio:.2f}" for ratio in self.draws)
        return f"{self.error.shown} | {draws} | " + ("" if self.forwards is None else f"{self.forwards:.2f}")


def compare(draws: Sequence[Rows], model: str, budget: int, method: str) -> Compared | None:
    """Return how the effort of a method compares in one cell; None where it was not run.

    The paper's search is that of the first draw: its forwards are compared, and it has seeds of its own.
    """
    pairs, spent = [], []
    for groups in draws:
        rows, thorough = groups.get((model, budget, method)), groups.get((model, budget, "joint"))
        if rows is not None and thorough is not None:
            pairs.append(tuple(log_errors(of).mean(0, keepdims=True) for of in (rows, thorough)))
            spent.append(geometric(rows)[1])
    if not pairs:
        return None
    paper = draws[0].get((model, budget, "paper-one"))
    return Compared(
        by_mean("joint", *(np.concatenate(logs, axis=1) for logs in zip(*pairs, strict=True))),
        tuple(by_mean("joint", *pair).ratio() for pair in pairs),
        None if paper is None else statistics.geometric_mean(spent) / geometric(paper)[1],
    )


def compared(draws: Sequence[Rows]) -> str:
    """Return the table of the cells in which each effort compares, and what follows for each effort, in a sentence."""
    heads = " | ".join(f"`{effort}`: error | on each draw | forwards" for effort in EFFORTS)
    lines = [f"| model, NFE | {heads} |", "|---|" + "---|---|---|" * len(EFFORTS)]
    found: dict[str, list[Compared]] = {effort: [] for effort in EFFORTS}
    for model, budget in cells_of(ChainMap(*map(dict, draws))):
        cells = {effort: compare(draws, model, budget, method) for effort, method in EFFORTS.items()}
        for effort, cell in cells.items():
            if cell is not None:
                found[effort].append(cell)
        if any(cell is not None for cell in cells.values()):
            shown = ("not run |  | " if cell is None else cell.shown for cell in cells.values())
            lines.append(f"| `{model}`, {budget} | {' | '.join(shown)} |")
    sentences = [_sentence(effort, cells) for effort, cells in found.items() if cells]
    return "\n".join([*lines, "", *sentences]) + "\n"


def _sentence(effort: str, cells: Sequence[Compared]) -> str:
    """Return what the cells say together."""
    limit, errors = LIMITS[effort], [cell.error for cell in cells]
    above = [error for error in errors if error.ratio() > limit]
    text = (
        f"- `{effort}` ends at {_mean(error.ratio() for error in errors):.2f} of `thorough`'s error, the geometric "
        f"mean of {len(errors)} cells. The aim of {limit:g} at most is met in {len(errors) - len(above)} of them"
    )
    if above:
        open_cells = sum(error.ratio(-2) <= limit for error in above)
        text += f", and within two standard errors in {len(errors) - len(above) + open_cells}"
    shares = [cell.forwards for cell in cells if cell.forwards is not None]
    if not shares:
        return text + "."
    span = f"{min(shares):.2f} to {max(shares):.2f}"
    return f"{text}. It spends {span} of the paper's forwards on one prompt, {_mean(shares):.2f} on average."


def _mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(values)


def cells_of(groups: Rows) -> list[tuple[str, int]]:
    """Return models and budgets: models in the order of the rows, budgets ascending."""
    models = list(dict.fromkeys(model for model, _, _ in groups))
    return sorted({cell[:2] for cell in groups}, key=lambda cell: (models.index(cell[0]), cell[1]))
