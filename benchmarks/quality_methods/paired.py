"""`--align` beside every other method, prompt by prompt: in which cells is another one ahead, and by how much?

    ratio of geometric means      exp(mean over prompts of log e - log e')      its error from the differences' spread
    ratio of 95th percentiles     exp(log p95(e) - log p95(e'))                 its error from resampled prompts

Both methods run on the same prompts and noise, so the differences of a pair are compared, not the two spreads. A method
is ahead where the ratio's logarithm is above 0 by more than two standard errors. Seeds of a method count as one: the
mean of the logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quality_methods.registry import METHODS
from quality_methods.tables import Row, by_method

OWN = ("joint-align", "joint-auto")
RESAMPLES = 2000
"""Draws of as many prompts, with replacement, for the percentile's standard error."""
_SHARE = 0.95

Logs = NDArray[np.float64]
"""Logarithms of errors, (seeds, prompts)."""


class Paired(NamedTuple):
    """The logarithm of the ratio of budc's figure to another method's, and its standard error."""

    rival: str
    log_ratio: float
    error: float

    @property
    def in_errors(self) -> float:
        """The logarithm in standard errors: above 2, the other method is ahead."""
        return self.log_ratio / self.error

    def ratio(self, errors: float = 0.0) -> float:
        """Return the ratio, so many standard errors above what was measured."""
        return math.exp(self.log_ratio + errors * self.error)

    @property
    def shown(self) -> str:
        """The ratio, and what it is within two standard errors."""
        return f"{self.ratio():.2f} ({self.ratio(-2):.2f} to {self.ratio(2):.2f})"

    def __str__(self) -> str:
        """As a cell of the table: the ratio, and the other method."""
        return f"{self.shown} | {METHODS[self.rival].title}"


def log_errors(rows: Sequence[Row]) -> Logs:
    """Return the logarithms of a method's errors in one cell."""
    return np.log([row["samples"]["error"] for row in rows])


def by_mean(rival: str, own: Logs, other: Logs) -> Paired:
    """Compare geometric means."""
    differences = own.mean(0) - other.mean(0)
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return Paired(rival, float(differences.mean()), float(error))


def by_percentile(rival: str, own: Logs, other: Logs) -> Paired:
    """Compare 95th percentiles, by nearest rank."""
    prompts = own.shape[1]
    drawn = np.random.default_rng(0).integers(prompts, size=(RESAMPLES, prompts))
    ratios = _percentile(own[:, drawn]) - _percentile(other[:, drawn])
    all_prompts = _percentile(own) - _percentile(other)
    return Paired(rival, float(all_prompts), float(ratios.std(ddof=1)))


def _percentile(logs: Logs) -> Logs:
    rank = math.ceil(_SHARE * logs.shape[-1]) - 1
    percentiles: Logs = np.sort(logs, axis=-1)[..., rank].mean(0)
    return percentiles


def section(rows: Sequence[Row]) -> str:
    """Return the section of docs/quality.md; empty where no prompt's errors can be paired."""
    lines, behind = [], []
    for model, nfe in dict.fromkeys((row["model"], row["budget"]) for row in rows):
        cell = by_method(row for row in rows if (row["model"], row["budget"]) == (model, nfe))
        others = {
            name: log_errors(group) for name, group in cell.items() if METHODS[name].family not in _NOT_RIVALS
        }
        for name in OWN:
            if name not in cell or not others or len(cell[name][0]["samples"]["error"]) < 2:
                continue
            own = log_errors(cell[name])
            closest = []
            for measure in (by_mean, by_percentile):
                compared = [measure(rival, own, logs) for rival, logs in others.items()]
                behind += [pair for pair in compared if pair.in_errors > 2]
                closest.append(max(compared, key=lambda pair: pair.in_errors))
            lines.append(f"| `{model}` | {nfe} | {_SHORT[name]} | {closest[0]} | {closest[1]} |")
    return "\n".join([_HEAD, *lines]) + f"\n\n{_verdict(behind, len(lines))}\n" if lines else ""


def _verdict(behind: Sequence[Paired], rows: int) -> str:
    if not behind:
        return f"No other method is ahead in any of these {rows} rows, by either figure."
    names = ", ".join(dict.fromkeys(METHODS[pair.rival].title for pair in behind))
    return (
        f"Ahead by more than two standard errors, in {len(behind)} comparisons of these {rows} rows: {names}."
    )


_NOT_RIVALS = ("budc", "ablation")
_SHORT = {"joint-align": "`--align`", "joint-auto": "`--align --steps auto`"}
_HEAD = """
## Prompt by prompt

Ratios of budc's error to another method's: below 1, budc's is lower. In brackets is the ratio within two standard
errors of the paired differences over prompts; those of the 95th percentile are from 2,000 draws of the prompts. Each
cell names the method that comes closest to being ahead, by the ratio's logarithm in standard errors. A method is ahead
where the whole bracket is above 1. The tail of 64 prompts is four of them, so its brackets are wide.

| model | NFE | policy | geometric mean | closest | 95th percentile | closest |
|---|---|---|---|---|---|---|"""
