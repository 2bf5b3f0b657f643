"""Settle a budget that follows from a quality or from a time, by bisection; everything that is tried shares one Finder.

quality    the smallest budget whose figure keeps the bound on the prompts that judge, which nothing was fitted on:
           the mean less its standard error, or the worst prompt
time       the largest budget whose denoising loop, with a uniform mask, takes no longer on this device
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from budc.compiler.comparison.latency import time_loops
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.report import frame_levels
from budc.compiler.loaded_target import LoadedTarget
from budc.compiler.rollouts.metrics import latent_errors, standard_error
from budc.compiler.rollouts.policies import shared_policy
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.task import ForwardCount, SearchResult
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.runtimes.sampling.devices import device_name
from budc.schema.bounds import Bound
from budc.schema.errors import BudgetImpossible
from budc.schema.evaluation import Latency
from budc.schema.mask import StepMask
from budc.schema.policy import SamplerBinding
from budc.schema.predictor import Predictor
from budc.schema.report_names import HIGHER_IS_BETTER, PSNR

_REPEATS = 3


class Settled(NamedTuple):
    """The budget, what was measured on the way in words, and what was found at the budgets that were tried."""

    nfe: int
    notes: tuple[str, ...]
    results: dict[int, SearchResult]


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

    def in_words(self, bound: Bound) -> str:
        """Return the point as a line of the curve."""
        kept = "kept" if self.keeps(bound) else "not kept"
        return (
            f"{self.nfe} evaluations: {bound.metric} {self.mean:.4g} ± {self.standard_error:.2g} "
            f"(worst {self.worst:.4g}) on {self.prompts} prompts that judge, {bound} {kept}"
        )


def smallest(keeps: Callable[[int], bool], fewest: int, most: int) -> int:
    """Return the smallest number that keeps a bound which more keep too; `most` is taken to keep it.

    Halves on a logarithmic scale: small budgets, which are cheap to try, come first.
    """
    low, high = fewest - 1, most
    while high - low > 1:
        middle = min(high - 1, max(low + 1, round(math.sqrt(max(low, 1) * high))))
        if keeps(middle):
            high = middle
        else:
            low = middle
    return high


def budget_for_quality(
    bound: Bound,
    loaded: LoadedTarget,
    finder: Finder,
    find: Callable[[int], SearchResult],
    journal: Journal,
    fewest: int,
    steps: int,
) -> Settled:
    """Return the smallest budget that keeps a bound; `find` searches a policy of so many evaluations.

    Raises:
        BudgetImpossible: none below `steps` does.
    """
    curve: dict[int, Point] = {}
    results: dict[int, SearchResult] = {}

    def keeps(nfe: int) -> bool:
        results[nfe] = find(nfe)
        latents, reference = finder.judged(results[nfe])
        if bound.metric == PSNR:
            levels = frame_levels(loaded.model, {nfe: latents}, reference, journal, f"quality {nfe}")
            values = levels[nfe]
        else:
            values = latent_errors(latents, reference)
        curve[nfe] = Point.of(nfe, values, higher_is_better=HIGHER_IS_BETTER[bound.metric])
        with progress("budget", 1) as bar:
            bar.say(curve[nfe].in_words(bound))
        return curve[nfe].keeps(bound)

    nfe = smallest(keeps, fewest, steps)
    notes = tuple(curve[tried].in_words(bound) for tried in sorted(curve))
    if nfe == steps:
        raise BudgetImpossible(
            f"--quality: no budget below the full run of {steps} steps keeps {bound}; "
            f"{notes[-1] if notes else 'there is none to try'}",
            remedy="ask for less",
        )
    branches = len(loaded.model.profile.branches)
    tried = ForwardCount(
        search=sum(
            result.forwards.total - result.forwards.reference
            for other, result in results.items()
            if other != nfe
        ),
        arbitration=sum(point.nfe * point.prompts * branches for point in curve.values()),
        proxy=sum(result.forwards.proxy for other, result in results.items() if other != nfe),
    )
    results[nfe] = replace(results[nfe], forwards=results[nfe].forwards + tried)
    return Settled(nfe, notes, results)


def budget_within(
    seconds: float, loaded: LoadedTarget, sampler: SamplerBinding, journal: Journal, fewest: int
) -> Settled:
    """Return the largest budget whose denoising loop takes at most so many seconds on this device.

    Raises:
        BudgetImpossible: the smallest takes longer.
    """
    taken: dict[int, Latency] = {}
    device = device_name(loaded.model.device)

    def too_long(nfe: int) -> bool:
        taken[nfe] = _loop_seconds(nfe, loaded, sampler, journal)
        return taken[nfe].median > seconds

    nfe = smallest(too_long, fewest, sampler.steps + 1) - 1
    notes = tuple(
        f"{tried} evaluations: the loop took {taken[tried].median:.3g} s "
        f"({taken[tried].fastest:.3g} to {taken[tried].slowest:.3g}) on {device}"
        for tried in sorted(taken)
    )
    if nfe < fewest:
        raise BudgetImpossible(
            f"--within: {seconds:g} s are too few; {notes[0]}",
            remedy="give more, or use a faster device or a smaller output",
        )
    return Settled(nfe, notes, {})


def _loop_seconds(nfe: int, loaded: LoadedTarget, sampler: SamplerBinding, journal: Journal) -> Latency:
    key = f"within {nfe}"
    latency = journal.get(key, Latency)
    if latency is None:
        mask = StepMask.uniform(sampler.steps, nfe).through(sampler.first_steps)
        policy = shared_policy(mask, Predictor.plain_reuse(mask), loaded.model.profile.branches)
        one = loaded.conditions.held_out.part(0, 1)
        rollout = PipelineRollout(loaded.model, batch=1)
        loops = {key: lambda: rollout.run(policy, sampler, one)}
        latency = time_loops(loops, _REPEATS, loaded.model.device, f"time of {nfe} evaluations")[key]
        journal.put(key, latency)
    return latency
