"""Finding: how the policy of a network is found, in a folder that keeps what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from budc.compiler.budget_bracket import QUALITY_SLOPE, TIME_SLOPE, Bracket
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.proxy import check_searched
from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.rollouts.policies import shared_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.proxy import ProxySearch, after_proxy, with_proxy
from budc.compiler.selection.settings import with_choices
from budc.compiler.selection.task import SearchResult, Task
from budc.compiler.settled_budget import budget_for_quality, budget_within, timed_loop
from budc.compiler.storage.journal import Journal
from budc.runtimes.sampling.devices import device_name
from budc.schema.bounds import Bound
from budc.schema.evaluation import Latency
from budc.schema.mask import StepMask
from budc.schema.predictor import Predictor


class Found(NamedTuple):
    """What was found, and the task that it was found for, whose budget may have been settled on the way."""

    task: Task
    result: SearchResult


Find = Callable[[Task, Journal], Found]
"""Finds a policy for a task; the journal keeps what was measured."""

Search = Callable[[Finder, Task], SearchResult]
"""Searches the policy of a task with a finder whose reference run is done."""


def search_through(smaller: Conditioning | None, name: str) -> Search:
    """Return the search of this name; on smaller samples, if there are any, with a short one on the real ones after it.

    Raises:
        UsageError: there are, and that search is not for them.
    """
    if smaller is None:
        return Finder.find
    check_searched(name)

    def search(finder: Finder, task: Task) -> SearchResult:
        # The folder around it belongs to this very call.
        with Journal(finder.journal.folder / "proxy", "proxy") as journal:
            masks = ProxySearch(replace(finder.task, conditions=smaller), journal)
            found = masks.find(replace(task, conditions=smaller))
        return with_proxy(finder.find(after_proxy(task, found)), found)

    return search


def by(find: Callable[[Finder], SearchResult]) -> Find:
    """Return what finds with a finder whose reference run is done."""
    return lambda task, journal: Found(task, find(Finder(Calibration(task, journal))))


def for_budget(search: Search) -> Find:
    """Return what finds the policy of a task's own budget."""
    return by(lambda finder: search(finder, finder.task))


def for_quality(bound: Bound, search: Search) -> Find:
    """Return what finds the policy of the smallest budget that keeps a bound; a task's budget is all its steps."""

    def find(task: Task, journal: Journal) -> Found:
        finder = Finder(Calibration(replace(task, judged=True), journal))

        def measure(_: int, latents: Tensor, reference: Tensor) -> list[float]:
            return latent_errors(latents, reference)

        settled = budget_for_quality(
            bound,
            finder,
            lambda nfe: search(finder, _at(finder.task, nfe)),
            measure,
            Bracket(_fewest(task), task.schedule.steps, QUALITY_SLOPE),
        )
        result = with_choices(settled.results[settled.nfe], settled.notes)
        return Found(_at(task, settled.nfe), result)

    return find


def within_seconds(seconds: float, search: Search) -> Find:
    """Return what finds the policy of the largest budget whose loop of one sample takes at most so many seconds."""

    def find(task: Task, journal: Journal) -> Found:
        one = BatchedDenoiser(task.denoiser, task.conditions.part(0, 1), batch=1)
        form, steps = task.schedule.linear_form(), task.schedule.steps
        first_steps = task.denoiser.first_steps(task.schedule.timesteps)

        def timed(nfe: int) -> Latency:
            mask = StepMask.uniform(steps, nfe).through(first_steps)
            policy = shared_policy(mask, Predictor.plain_reuse(mask), task.denoiser.branches)
            return timed_loop(nfe, lambda: rollout_policy(one, form, policy), task.denoiser.device, journal)

        bracket = Bracket(_fewest(task), steps + 1, TIME_SLOPE)
        settled = budget_within(seconds, timed, device_name(task.denoiser.device), bracket)
        task = _at(task, settled.nfe)
        result = search(Finder(Calibration(task, journal)), task)
        # Not among the settings, which the policy keeps: times differ from run to run.
        return Found(task, replace(result, notes=(*result.notes, *settled.times)))

    return find


def _at(task: Task, nfe: int) -> Task:
    """Return the task at another budget."""
    few = None if task.few_step_schedule is None else task.schedule.resampled(nfe)
    return replace(task, nfe=nfe, few_step_schedule=few)


def _fewest(task: Task) -> int:
    return 1 + len(task.denoiser.first_steps(task.schedule.timesteps))
