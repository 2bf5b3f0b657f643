"""The queue: which task goes to which worker, and what becomes of a task whose worker was lost. It knows no Ray."""

from __future__ import annotations

from collections import Counter, deque

from budc.schema.errors import ClusterUnusable

ATTEMPTS = 3
"""How many workers a task may lose before the run ends: then it is the task that kills them."""
NODE_FAILURES = 2
"""How many workers a node may lose before it is set aside, where there is another."""


class TaskQueue:
    """Tasks 0 … count - 1. They are taken in order; one that is lost is taken next."""

    def __init__(self, count: int) -> None:
        self._waiting = deque(range(count))
        self._lost: Counter[int] = Counter()
        self._unfinished = count

    @property
    def waiting(self) -> bool:
        """Whether there is a task that no worker has."""
        return bool(self._waiting)

    @property
    def finished(self) -> bool:
        """Whether every task is done."""
        return not self._unfinished

    def take(self) -> int:
        """Return the next task, for a worker to do."""
        return self._waiting.popleft()

    def done(self) -> None:
        """Count a task as done."""
        self._unfinished -= 1

    def lost(self, task: int, reason: str) -> None:
        """Queue a task again whose worker was lost.

        Raises:
            ClusterUnusable: it has lost as many workers as it may.
        """
        self._lost[task] += 1
        if self._lost[task] == ATTEMPTS:
            raise ClusterUnusable(
                f"a task has lost {ATTEMPTS} workers; the last one: {reason}",
                remedy="look in the logs of the nodes, for memory that ran out or the like; the same command resumes",
            )
        self._waiting.appendleft(task)

    def give_back(self, task: int) -> None:
        """Queue a task again that was taken from its worker."""
        self._waiting.appendleft(task)


class Nodes:
    """Counts the workers that each node has lost, and says which nodes are set aside."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()
        self.set_aside: set[str] = set()

    def failed(self, node: str, others: int) -> bool:
        """Count a lost worker; return whether its node is set aside now. The last node never is."""
        self._failures[node] += 1
        if self._failures[node] < NODE_FAILURES or not others or node in self.set_aside:
            return False
        self.set_aside.add(node)
        return True
