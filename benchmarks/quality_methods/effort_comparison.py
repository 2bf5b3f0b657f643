"""Efforts beside `thorough`, and all of them beside the search that there was before efforts, which aims are set by.

Both run on the same draws of prompts (`quality_methods.draws`): on one draw, chance decides which of two masks has the
lower error.
"""

from __future__ import annotations

import math
import statistics
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from quality_methods.efforts import Rows, cells_of, geometric
from quality_methods.paired import Paired, by_mean, log_errors

EFFORTS = {"fast": "joint-fast", "balanced": "joint-balanced"}
"""Efforts that are compared with `thorough`, and their methods."""

LIMITS = {"fast": 1.25, "balanced": 1.05}
"""The most that an effort's error may be of that of the search before."""

UNLUCKY = 1.5
"""A draw on which an effort comes to so many times `thorough`'s error is counted."""

THOROUGH, BEFORE = "joint", "before"
"""Methods of the rows that efforts are compared with."""


class Compared(NamedTuple):
    """An effort in one cell: its error over the other's, on all draws, with their standard error, and on each; and its
    forwards over those of the paper's search on one prompt, where that was run.
    """

    error: Paired
    draws: tuple[float, ...]
    forwards: float | None

    @property
    def shown(self) -> str:
        """As cells of the table."""
        draws = ", ".join(f"{ratio:.2f}" for ratio in self.draws)
        return f"{self.error.shown} | {draws} | " + ("" if self.forwards is None else f"{self.forwards:.2f}")


Cells = Mapping[tuple[str, int], Mapping[str, Compared | None]]
"""Model and budget -> effort -> how it compares; None where it was not run."""


def compare(
    draws: Sequence[Rows], model: str, budget: int, method: str, other: str = THOROUGH
) -> Compared | None:
    """Return how a method compares with another one in one cell; None where no draw has both.

    Of one draw, the standard error is that over its prompts. The paper's search is that of the first draw: its forwards
    are compared, and it has seeds of its own.
    """
    pairs, spent = list[Paired](), []
    for groups in draws:
        rows, others = groups.get((model, budget, method)), groups.get((model, budget, other))
        if rows is not None and others is not None:
            logs = (log_errors(of).mean(0, keepdims=True) for of in (rows, others))
            pairs.append(by_mean(other, *logs))
            spent.append(geometric(rows)[1])
    if not pairs:
        return None
    error, ratios = pairs[0], [pair.log_ratio for pair in pairs]
    if len(ratios) > 1:
        error = Paired(other, statistics.fmean(ratios), statistics.stdev(ratios) / math.sqrt(len(ratios)))
    paper = draws[0].get((model, budget, "paper-one"))
    return Compared(
        error,
        tuple(math.exp(ratio) for ratio in ratios),
        None if paper is None else _mean(spent) / geometric(paper)[1],
    )


def compared(draws: Sequence[Rows]) -> str:
    """Return the table of the cells in which each effort compares with `thorough`, and a sentence for each effort."""
    heads = " | ".join(f"`{effort}`: error | on each draw | forwards" for effort in EFFORTS)
    cells = _cells(draws, EFFORTS, THOROUGH)
    lines = [f"| model, NFE | {heads} |", "|---|" + "---|---|---|" * len(EFFORTS)]
    for (model, budget), own in cells.items():
        shown = ("not run |  | " if cell is None else cell.shown for cell in own.values())
        lines.append(f"| `{model}`, {budget} | {' | '.join(shown)} |")
    found = _by_effort(cells)
    sentences = [
        _mean_error(own, f"`{effort}`", "`thorough`'s error") + _unlucky(own) + _forwards(own)
        for effort, own in found.items()
    ]
    return "\n".join([*lines, "", *sentences]) + "\n"


def compared_with_before(draws: Sequence[Rows]) -> str:
    """Return the table of the cells in which each effort compares with the search before, and a sentence for each."""
    efforts = {**EFFORTS, "thorough": THOROUGH}
    cells = _cells(draws, efforts, BEFORE)
    lines = [
        f"| model, NFE | {' | '.join(f'`{effort}`' for effort in efforts)} |",
        "|---|" + "---|" * len(efforts),
    ]
    for (model, budget), own in cells.items():
        shown = ("not run" if cell is None else cell.error.shown for cell in own.values())
        lines.append(f"| `{model}`, {budget} | {' | '.join(shown)} |")
    sentences = [
        _mean_error(own, f"`{effort}`", "the error before") + _met(own, LIMITS.get(effort))
        for effort, own in _by_effort(cells).items()
    ]
    return "\n".join([*lines, "", *sentences]) + "\n"


def _cells(draws: Sequence[Rows], efforts: Mapping[str, str], other: str) -> Cells:
    """Return the cells in which some effort compares with the other method."""
    cells = {
        (model, budget): {
            effort: compare(draws, model, budget, method, other) for effort, method in efforts.items()
        }
        for model, budget in cells_of(ChainMap(*map(dict, draws)))
    }
    return {at: own for at, own in cells.items() if any(cell is not None for cell in own.values())}


def _by_effort(cells: Cells) -> dict[str, list[Compared]]:
    """Return what compares of each effort; none that was not run."""
    found: dict[str, list[Compared]] = {}
    for own in cells.values():
        for effort, cell in own.items():
            if cell is not None:
                found.setdefault(effort, []).append(cell)
    return found


def _mean_error(cells: Sequence[Compared], effort: str, of: str) -> str:
    """Return the mean of the cells' errors as a sentence."""
    mean = _mean(cell.error.ratio() for cell in cells)
    return f"- {effort} ends at {mean:.2f} of {of}, the geometric mean of {len(cells)} cells."


def _met(cells: Sequence[Compared], limit: float | None) -> str:
    """Return in how many cells a limit is kept, as a sentence; empty where there is none."""
    if limit is None:
        return ""
    errors = [cell.error for cell in cells]
    above = [error for error in errors if error.ratio() > limit]
    text = f" The aim of {limit:g} at most is met in {len(errors) - len(above)} of them"
    if above:
        open_cells = sum(error.ratio(-2) <= limit for error in above)
        text += f", and within two standard errors in {len(errors) - len(above) + open_cells}"
    return text + "."


def _unlucky(cells: Sequence[Compared]) -> str:
    """Return how many draws lost much, as a sentence."""
    ratios = [ratio for cell in cells for ratio in cell.draws]
    lost = sum(ratio >= UNLUCKY for ratio in ratios)
    return f" {lost} of {len(ratios)} draws came to {UNLUCKY:g} times or more."


def _forwards(cells: Sequence[Compared]) -> str:
    """Return what the cells' forwards say together; empty where the paper's were not counted."""
    shares = [cell.forwards for cell in cells if cell.forwards is not None]
    if not shares:
        return ""
    span = f"{min(shares):.2f} to {max(shares):.2f}"
    return f" It spends {span} of the paper's forwards on one prompt, {_mean(shares):.2f} on average."


def _mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(values)
