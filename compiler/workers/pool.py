"""The pool: Ray actors that do tasks in any order, replaced where they are lost.

    with worker_pool(cluster, device, folder) as pool:
        pool.set_up(load_model)                  # every worker; one that replaces a lost one, too
        for position, result in pool.run(tasks):
            ...

A worker that is lost loses its task alone, which is queued again. A node that loses workers twice is set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from budc.compiler.workers.actor import Failed, Setup, Task
from budc.compiler.workers.queue import ATTEMPTS, Nodes, TaskQueue
from budc.compiler.workers.started_worker import StartedWorker, Starter, placed
from budc.progress import notice, stage
from budc.schema.errors import BudcError, ClusterUnusable
from budc.schema.foreign_error import reason_of
from budc.schema.plural import counted

START_SECONDS = 300.0
"""How long a worker may take to start: Ray waits for ever for room that another takes."""


@dataclass
class Pool:
    """Workers of one cluster, as `starter` starts them; `setups` are what every one has done before its tasks."""

    starter: Starter
    workers: list[StartedWorker] = field(default_factory=list)
    setups: list[Any] = field(default_factory=list)
    nodes: Nodes = field(default_factory=Nodes)
    lost_at_start: int = 0
    """How many workers were lost, one after another, that were not ready yet."""

    @property
    def ray(self) -> Any:
        """Ray's module."""
        return self.starter.ray

    @property
    def device(self) -> torch.device:
        """What the workers compute on."""
        return self.starter.device

    def start(self, count: int) -> None:
        """Start workers, spread over the nodes.

        Raises:
            ClusterUnusable: some do not start, or have other versions or another device than this process.
        """
        stage("workers", counted(count, "worker"))
        self.workers = [self.starter.start(self.setups) for _ in range(count)]
        answers = [worker.starting[0] for worker in self.workers]
        _, waiting = self.ray.wait(answers, num_returns=count, timeout=START_SECONDS)
        if waiting:
            raise ClusterUnusable(
                f"{len(waiting)} of {counted(count, 'worker')} did not start within {START_SECONDS:.0f} s",
                remedy="ask for fewer with --workers: the cluster has no room for them",
            )
        for worker in self.workers:
            try:
                self.starter.make_ready(worker)
            except self.ray.exceptions.RayError as error:
                raise ClusterUnusable(
                    f"{worker.place} cannot be started: {reason_of(error)}",
                    remedy="install budc with its extra ray in the environment of every node",
                ) from error

    def set_up(self, setup: Setup) -> None:
        """Let every worker do this once, and every one that is started later, such as in place of one that is lost.

        Raises:
            BudcError: what a worker raises; ClusterUnusable: too many are lost.
        """
        shared = self.ray.put(setup)
        self.setups.append(shared)
        for worker, answer in [(worker, worker.handle.set_up.remote(shared)) for worker in self.workers]:
            if worker not in self.workers:
                # Its node was set aside, as the one before it was lost there.
                continue
            try:
                failed = self.ray.get(answer)
            except self.starter.losses as error:
                self._lose(worker, None, TaskQueue(0), {}, reason_of(error))
                continue
            if isinstance(failed, Failed):
                raise placed(failed.error, worker.place)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Yield the position and the result of every task as it is done, in any order.

        Raises:
            ClusterUnusable: no worker is left, or a task loses every worker that it is given to.
            BudcError: what a task raises.
        """
        queue, running = TaskQueue(len(tasks)), dict[Any, StartedWorker]()
        # A worker that is started again may find its node changed, and raise what `set_up` raises.
        losses: tuple[type[BaseException], ...] = (*self.starter.losses, BudcError)
        while not queue.finished:
            for worker in self.workers:
                if not worker.starting and worker.task is None and queue.waiting:
                    worker.task = queue.take()
                    running[worker.handle.do.remote(tasks[worker.task])] = worker
            answer = self._first_answer(running)
            worker = running.pop(answer) if answer in running else self._starting(answer)
            position, worker.task = worker.task, None
            try:
                if position is None:
                    self.starter.make_ready(worker)
                    self.lost_at_start = 0
                    continue
                result = self.ray.get(answer)
            except losses as error:
                self._lose(worker, position, queue, running, reason_of(error))
                continue
            if isinstance(result, Failed):
                raise placed(result.error, worker.place)
            queue.done()
            yield position, result

    def describe(self) -> str:
        """Return how many workers there are, for the progress."""
        ready = sum(not worker.starting for worker in self.workers)
        return counted(ready, "worker") + (f" of {len(self.workers)}" if ready < len(self.workers) else "")

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            self.starter.end(worker)
        self.workers = []

    def _starting(self, answer: Any) -> StartedWorker:
        return next(worker for worker in self.workers if worker.starting and worker.starting[-1] == answer)

    def _first_answer(self, running: Mapping[Any, StartedWorker]) -> Any:
        """Wait for a task, or for a worker that starts."""
        starting = [worker.starting[-1] for worker in self.workers if worker.starting]
        answers = [*running, *starting]
        ended: list[Any] = []
        if answers:
            ended, _ = self.ray.wait(answers, num_returns=1, timeout=None if running else START_SECONDS)
        if not ended:
            raise ClusterUnusable("no worker is left, and none could be started again")
        return ended[0]

    def _lose(
        self,
        worker: StartedWorker,
        task: int | None,
        queue: TaskQueue,
        running: dict[Any, StartedWorker],
        why: str,
    ) -> None:
        """Queue the task of a lost worker again; start another one, or set its node aside with all that are on it."""
        self.starter.end(worker)
        self.workers.remove(worker)
        if task is not None:
            queue.lost(task, f"{worker.place}: {why}")
        else:
            self._count_lost_at_start(f"{worker.place}: {why}")
        others = {other.node for other in self.workers} - {worker.node}
        if not self.nodes.failed(worker.node, len(others)):
            if worker.node not in self.nodes.set_aside:
                notice(f"{worker.place} was lost ({why}); another one is started")
                self.workers.append(self.starter.start(self.setups, worker.node))
            return
        notice(f"{worker.place} was lost ({why}), the second one there: its node is set aside")
        for other in [other for other in self.workers if other.node == worker.node]:
            self.starter.end(other)
            self.workers.remove(other)
            for answer in [answer for answer, owner in running.items() if owner is other]:
                del running[answer]
            if other.task is not None:
                queue.give_back(other.task)

    def _count_lost_at_start(self, reason: str) -> None:
        self.lost_at_start += 1
        if self.lost_at_start == ATTEMPTS:
            raise ClusterUnusable(
                f"{ATTEMPTS} workers were lost while they were set up; the last one: {reason}",
                remedy="look in the logs of the nodes, for memory that ran out or the like; the same command resumes",
            )
