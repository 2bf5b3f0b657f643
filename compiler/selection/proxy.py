"""Proxy: masks searched on samples of a smaller output, from which a short search at the real size starts.

A forward of fewer frames or pixels costs a fraction. A proxy may mislead, so the real search has its own starts, too,
and what is reused, by which coefficients, is decided there (docs/adr/0020-proxies.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from budc.compiler.search.payload_penalty import payload_penalty
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.effort import AFTER_PROXY, PROXY_MASKS
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.stages import Stages, stages_of
from budc.compiler.selection.task import ForwardCount, SearchResult, Task
from budc.compiler.storage.journal import Journal


@dataclass(frozen=True)
class ProxyMasks:
    """The best masks at the proxy's size as compute steps, best first; how many candidates and forwards that took, and
    how many of these its reference run, which several budgets share.
    """

    masks: tuple[tuple[int, ...], ...]
    candidates: int
    forwards: int
    reference: int


class ProxySearch:
    """Searches masks of several budgets at the proxy's size; they share its reference run.

    The first task's budget decides how many prompts all are given, so it is the largest. There is neither race nor
    arbitration: finalists are compared at the real size.

    Raises:
        BudcError: see `Finder`.
    """

    def __init__(self, task: Task, journal: Journal) -> None:
        screen = stages_of(task.search, task.effort, task.nfe, len(task.conditions), arbitrates=False).screen
        self._finder = Finder(Calibration(_searched(task), journal, stages=Stages(screen, screen, 0)))

    def find(self, task: Task) -> ProxyMasks:
        """Return the best masks for a task that differs from the first in its budget alone."""
        result = self._finder.find(_searched(task))
        prompts = self._finder.calibration.stages.screen
        ranked = sorted(result.trace, key=lambda at: at.loss + payload_penalty(at.candidate.payload, prompts))
        masks = dict.fromkeys(point.candidate.mask.compute_steps for point in ranked)
        forwards = result.forwards
        return ProxyMasks(tuple(masks)[:PROXY_MASKS], result.candidates, forwards.total, forwards.reference)


def after_proxy(task: Task, found: ProxyMasks) -> Task:
    """Return the task of a short search at the real size, which starts from the proxy's masks among others.

    Published ones are not among these: the proxy has tried them.
    """
    share = min(AFTER_PROXY, task.share)
    return replace(task, search="joint", starts=found.masks, published_masks=(), rollouts=share)


def with_proxy(result: SearchResult, found: ProxyMasks) -> SearchResult:
    """Return what was found at the real size, with what the proxy took."""
    return replace(
        result,
        candidates=result.candidates + found.candidates,
        forwards=result.forwards + ForwardCount(proxy=found.forwards, proxy_reference=found.reference),
    )


def _searched(task: Task) -> Task:
    """Return the task of a search alone: what is refined, trained or judged is so at the real size."""
    return replace(task, refine=False, align=False, judged=False, few_step_schedule=None)
