"""Settle a budget that follows from a quality or from a time, in few tries (`budc.compiler.budget_bracket`).

quality    the smallest budget whose figure keeps the bound on the prompts that judge, which nothing was fitted on:
           the mean less its standard error, or the worst prompt; everything that is tried shares one Finder
time       the largest budget whose denoising loop, with a uniform mask, takes no longer on this device
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from budc.compiler.budget_bracket import Bracket
from budc.compiler.comparison.latency import time_loops
from budc.compiler.metrics.psnr import PSNR
from budc.compiler.rollouts.metrics import standard_error
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.task import ForwardCount, SearchResult
from budc.compiler.storage.journal import Journal
from budc.option_names import option
from budc.progress import notice, progress
from budc.schema.bounds import Bound
from budc.schema.errors import BudgetImpossible
from budc.schema.evaluation import Latency
from budc.schema.plural import counted
from budc.schema.report_names import HIGHER_IS_BETTER, METRIC_TITLES

QUALITY_PASS, TIME_PASS = "quality of", "time of"
"""What the labels of passes begin with that judge what was found at one budget, and that time its loop."""
REPEATS = 3
"""How often a loop is timed, after once that is not counted."""
_LEAST = 1e-300

Tell = Callable[[Bracket], object]
"""Hears what is known of the budget, after each try."""
Measure = Callable[[int, Tensor, Tensor], list[float]]
"""Returns the figure of each prompt, for a budget, final latents (N, ...) and those of the reference run."""


class Settled(NamedTuple):
    """The budget, and what was measured on the way, a line for each budget that was tried.

    `notes` are figures, which the policy keeps. `times` are not the same in every run, so it does not. `results` has
    what was found at the budgets that were tried for a quality.
    """

    nfe: int
    notes: tuple[str, ...] = ()
    results: Mapping[int, SearchResult] = MappingProxyType({})
    times: tuple[str, ...] = ()


class Point(NamedTuple):
    """A figure at one budget."""

    nfe: int
    mean: float
    standard_error: float
    worst: float
    prompts: int

    @classmethod
    def of(cls, nfe: int, values: list[float], *, higher_is_better: bool) -> Point:
        """Summarise the values of each prompt."""
        worst = min(values) if higher_is_better else max(values)
        return cls(nfe, statistics.fmean(values), standard_error(values), worst, len(values))

    def keeps(self, bound: Bound) -> bool:
        """Whether it keeps within a bound, also where the mean is one standard error worse."""
        if bound.figure != bound.metric:
            return bound.holds(self.worst)
        better = 1 if HIGHER_IS_BETTER[bound.metric] else -1
        return bound.holds(self.mean - better * self.standard_error)

    def margin(self, bound: Bound) -> float:
        """Return by how much it keeps a bound, as a logarithm of the squared error; negative where it does not."""
        worse = -1 if HIGHER_IS_BETTER[bound.metric] else 1
        mean = self.mean + worse * self.standard_error
        value = mean if bound.figure == bound.metric else self.worst
        if bound.metric == PSNR.name:
            return (value - bound.number) * math.log(10) / 10
        return math.log(max(bound.number, _LEAST) / max(value, _LEAST))

    def in_words(self, bound: Bound) -> str:
        """Return the point as a line of the curve."""
        kept = "kept" if self.keeps(bound) else "not kept"
        title, unit = METRIC_TITLES[bound.metric], f" {PSNR.unit}" if bound.metric == PSNR.name else ""
        return (
            f"{counted(self.nfe, 'evaluation')}: {title} {self.mean:.4g} ± {self.standard_error:.2g}{unit} "
            f"(worst {self.worst:.4g}) on {counted(self.prompts, 'prompt that judges', 'prompts that judge')}, "
            f"bound {kept}"
        )


def budget_for_quality(
    bound: Bound,
    finder: Finder,
    find: Callable[[int], SearchResult],
    measure: Measure,
    bracket: Bracket,
    tell: Tell = lambda _: None,
) -> Settled:
    """Return the smallest budget that keeps a bound; `find` searches a policy of so many evaluations.

    `bracket` has all budgets below the full run's steps; `tell` hears it after every try.

    Raises:
        BudgetImpossible: none of them does.
    """
    steps = bracket.high
    curve: dict[int, Point] = {}
    results: dict[int, SearchResult] = {}
    while (nfe := bracket.next) is not None:
        results[nfe] = find(nfe)
        with progress(f"{QUALITY_PASS} {nfe} evaluations", 1) as bar:
            latents, reference = finder.calibration.judged(results[nfe])
            bar.advance()
        values = measure(nfe, latents, reference)
        curve[nfe] = Point.of(nfe, values, higher_is_better=HIGHER_IS_BETTER[bound.metric])
        notice(curve[nfe].in_words(bound))
        bracket.tell(nfe, curve[nfe].margin(bound), kept=curve[nfe].keeps(bound))
        tell(bracket)
    nfe = bracket.high
    notes = tuple(curve[tried].in_words(bound) for tried in sorted(curve))
    if nfe == steps:
        raise BudgetImpossible(
            f"{option('quality')}: no budget below the full run of {steps} steps keeps {bound.in_words}; "
            f"{notes[-1] if notes else 'there is none to try'}",
            remedy="ask for less",
        )
    branches = len(finder.task.denoiser.branches)
    others = [result.forwards.own for other, result in results.items() if other != nfe]
    tried = ForwardCount(
        search=sum(forwards.total for forwards in others),
        arbitration=sum(point.nfe * point.prompts * branches for point in curve.values()),
        proxy=sum(forwards.proxy for forwards in others),
    )
    results[nfe] = replace(results[nfe], forwards=results[nfe].forwards + tried)
    return Settled(nfe, notes=notes, results=results)


def budget_within(
    seconds: float,
    timed: Callable[[int], Latency],
    device: str,
    bracket: Bracket,
    tell: Tell = lambda _: None,
) -> Settled:
    """Return the largest budget whose denoising loop takes at most so many seconds.

    `timed` measures the loop of so many evaluations; `bracket` is of the smallest budget that takes longer.

    Raises:
        BudgetImpossible: the smallest takes longer.
    """
    taken: dict[int, Latency] = {}
    while (nfe := bracket.next) is not None:
        taken[nfe] = timed(nfe)
        median = taken[nfe].median
        bracket.tell(nfe, math.log(median / seconds), kept=median > seconds)
        tell(bracket)
    times = tuple(
        f"{counted(tried, 'evaluation')}: the loop took {taken[tried].median:.3g} s "
        f"({taken[tried].fastest:.3g} to {taken[tried].slowest:.3g}) on {device}"
        for tried in sorted(taken)
    )
    nfe = bracket.high - 1
    if nfe < bracket.fewest:
        raise BudgetImpossible(
            f"{option('within')}: {seconds:g} s are too few; {times[0]}",
            remedy="give more, or use a faster device or a smaller output",
        )
    return Settled(nfe, times=times)


def timed_loop(nfe: int, loop: Callable[[], object], device: torch.device, journal: Journal) -> Latency:
    """Return what a loop of so many evaluations takes; the journal keeps it."""
    key = f"within {nfe}"
    latency = journal.get(key, Latency)
    if latency is None:
        latency = time_loops({key: loop}, REPEATS, device, f"{TIME_PASS} {nfe} evaluations")[key]
        journal.put(key, latency)
    return latency
