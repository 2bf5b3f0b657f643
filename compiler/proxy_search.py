"""`--proxy`: masks are searched at a smaller size, and a short search at the real one starts from the best of them.

The proxy runs the same model on the same prompts, on the schedule that its scheduler has for that size. Text encoders
run again for it, as what they return may depend on the size.
"""

from __future__ import annotations

from budc.compiler.compile_plan import CompilePlan
from budc.compiler.compile_task import compile_task
from budc.compiler.further_shapes import SizedTarget
from budc.compiler.proxy import in_words
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.proxy import ProxySearch, after_proxy, with_proxy
from budc.compiler.selection.task import SearchResult, Task
from budc.progress import stage


class SizedSearch:
    """The search of a compile at the size of its proxy, whose reference run is made at once.

    Raises:
        BudcError: see `Finder`.
    """

    def __init__(self, plan: CompilePlan, target: SizedTarget) -> None:
        self._plan, self._loaded = plan, target.loaded
        self._sampler = target.loaded.model.sampler(plan.steps)
        task = self._task(plan.largest)
        stage("proxy", f"masks are searched at {in_words(target.size)}")
        self._search = ProxySearch(task, target.journal)

    def _task(self, nfe: int) -> Task:
        return compile_task(self._plan, self._loaded, self._sampler, nfe)

    def then(self, finder: Finder, task: Task) -> SearchResult:
        """Return the best policy for a task at the real size, after the search here."""
        found = self._search.find(self._task(task.nfe))
        return with_proxy(finder.find(after_proxy(task, found)), found)
