"""The pool: Ray actors that do tasks in any order, replaced where they are lost.

    with worker_pool(cluster, device, folder) as pool:
        pool.set_up(load_model)                  # every worker; one that replaces a lost one, too
        for position, result in pool.run(tasks):
            ...

A worker that is lost loses its task alone, which is queued again. A node that loses workers twice is set aside.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from budc.compiler.cluster import Cluster
from budc.compiler.workers.actor import About, Failed, Setup, Task, Worker, own_versions
from budc.compiler.workers.queue import Nodes, TaskQueue
from budc.compiler.workers.ray_cluster import Share, connected, first_line, worker_count
from budc.option_names import option
from budc.progress import notice, side_note, stage
from budc.runtimes.sampling.devices import device_name
from budc.schema.errors import BudcError, ClusterUnusable, OutputError
from budc.schema.plural import counted

START_SECONDS = 300.0
"""How long a worker may take to start: Ray waits for ever for room that another takes."""
PROBE = b"budc"


@dataclass(eq=False)
class _Actor:
    """One worker: its handle, the node that it is on, and the task that it does.

    `starting` are the answers that it owes until it is ready.
    """

    handle: Any
    starting: list[Any]
    node: str = ""
    place: str = "a worker"
    task: int | None = None


@dataclass
class Pool:
    """Workers of one cluster. `device` is what they compute on, with so many threads."""

    ray: Any
    share: Share
    device: torch.device
    threads: int
    actors: list[_Actor] = field(default_factory=list)
    setups: list[Any] = field(default_factory=list)
    nodes: Nodes = field(default_factory=Nodes)

    def start(self, count: int) -> None:
        """Start workers, spread over the nodes.

        Raises:
            ClusterUnusable: some do not start, or have other versions or another device than this process.
        """
        stage("workers", counted(count, "worker"))
        self.actors = [self._started("SPREAD") for _ in range(count)]
        answers = [actor.starting[0] for actor in self.actors]
        _, waiting = self.ray.wait(answers, num_returns=count, timeout=START_SECONDS)
        if waiting:
            raise ClusterUnusable(
                f"{len(waiting)} of {counted(count, 'worker')} did not start within {START_SECONDS:.0f} s",
                remedy="ask for fewer with --workers: the cluster has no room for them",
            )
        for actor in self.actors:
            try:
                self._make_ready(actor)
            except self.ray.exceptions.RayError as error:
                raise ClusterUnusable(
                    f"{actor.place} cannot be started: {first_line(error)}",
                    remedy="install budc with its extra ray in the environment of every node",
                ) from error

    def check_shared(self, folder: Path) -> None:
        """Refuse a folder that the workers do not see. Raises ClusterUnusable, OutputError."""
        probe = folder.absolute() / f".budc-shared-{os.getpid()}"
        try:
            probe.write_bytes(PROBE)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
        try:
            answers = [actor.handle.sees.remote(probe, PROBE) for actor in self.actors]
            for actor, seen in zip(self.actors, self.ray.get(answers), strict=True):
                if not seen:
                    raise ClusterUnusable(
                        f"{folder.absolute()}: {actor.place} does not see this folder, or cannot write there",
                        remedy="put --out (for a replay TMPDIR) on a file system that all nodes share, at one path",
                    )
        finally:
            probe.unlink(missing_ok=True)

    def set_up(self, setup: Setup) -> None:
        """Let every worker do this once, and every one that is started later.

        Raises:
            BudcError: what a worker raises; ClusterUnusable: one is lost.
        """
        shared = self.ray.put(setup)
        self.setups.append(shared)
        answers = [actor.handle.set_up.remote(shared) for actor in self.actors]
        for actor, answer in zip(self.actors, answers, strict=True):
            try:
                failed = self.ray.get(answer)
            except self._losses as error:
                raise ClusterUnusable(
                    f"{actor.place} was lost while it was set up: {first_line(error)}"
                ) from error
            if isinstance(failed, Failed):
                raise placed(failed.error, actor.place)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Yield the position and the result of every task as it is done, in any order.

        Raises:
            ClusterUnusable: no worker is left, or a task loses every worker that it is given to.
            BudcError: what a task raises.
        """
        queue, running = TaskQueue(len(tasks)), dict[Any, _Actor]()
        # A worker that is started again may find its node changed, and raise what `set_up` raises.
        losses: tuple[type[BaseException], ...] = (*self._losses, BudcError)
        while not queue.finished:
            for actor in self.actors:
                if not actor.starting and actor.task is None and queue.waiting:
                    actor.task = queue.take()
                    running[actor.handle.do.remote(tasks[actor.task])] = actor
            answer = self._first_answer(running)
            actor = running.pop(answer) if answer in running else self._starting(answer)
            position, actor.task = actor.task, None
            try:
                if position is None:
                    self._make_ready(actor)
                    continue
                result = self.ray.get(answer)
            except losses as error:
                self._lose(actor, position, queue, running, first_line(error))
                continue
            if isinstance(result, Failed):
                raise placed(result.error, actor.place)
            queue.done()
            yield position, result

    def describe(self) -> str:
        """Return how many workers there are, for the progress."""
        ready = sum(not actor.starting for actor in self.actors)
        return counted(ready, "worker") + (f" of {len(self.actors)}" if ready < len(self.actors) else "")

    def close(self) -> None:
        """End all workers."""
        for actor in self.actors:
            self._end(actor)
        self.actors = []

    @property
    def _losses(self) -> tuple[type[BaseException], ...]:
        errors = self.ray.exceptions
        return (
            errors.RayActorError,
            errors.NodeDiedError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.ActorUnschedulableError,
        )

    def _started(self, strategy: object, node: str = "") -> _Actor:
        remote = self.ray.remote(Worker).options(
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=strategy,
        )
        handle = remote.remote()
        answers = [handle.about.remote(self.device.type, self.threads)]
        return _Actor(handle, [*answers, *(handle.set_up.remote(setup) for setup in self.setups)], node)

    def _make_ready(self, actor: _Actor) -> None:
        """Take the answers of a worker that has started. Raises what it raises, ClusterUnusable, an error of Ray's."""
        about, *others = self.ray.get(actor.starting)
        for answer in (about, *others):
            if isinstance(answer, Failed):
                raise placed(answer.error, actor.place)
        actor.node, actor.place = about.node, f"worker {about.pid} on {about.host}"
        check_alike(about, self.device, actor.place)
        actor.starting = []

    def _starting(self, answer: Any) -> _Actor:
        return next(actor for actor in self.actors if actor.starting and actor.starting[-1] == answer)

    def _first_answer(self, running: Mapping[Any, _Actor]) -> Any:
        """Wait for a task, or for a worker that starts."""
        starting = [actor.starting[-1] for actor in self.actors if actor.starting]
        answers = [*running, *starting]
        ended: list[Any] = []
        if answers:
            ended, _ = self.ray.wait(answers, num_returns=1, timeout=None if running else START_SECONDS)
        if not ended:
            raise ClusterUnusable("no worker is left, and none could be started again")
        return ended[0]

    def _lose(
        self, actor: _Actor, task: int | None, queue: TaskQueue, running: dict[Any, _Actor], why: str
    ) -> None:
        """Queue the task of a lost worker again; start another one, or set its node aside with all that are on it."""
        self._end(actor)
        self.actors.remove(actor)
        if task is not None:
            queue.lost(task, f"{actor.place}: {why}")
        others = {other.node for other in self.actors} - {actor.node}
        if not self.nodes.failed(actor.node, len(others)):
            if actor.node not in self.nodes.set_aside:
                notice(f"{actor.place} was lost ({why}); another one is started")
                self.actors.append(self._started(self._at(actor.node), actor.node))
            return
        notice(f"{actor.place} was lost ({why}), the second one there: its node is set aside")
        for other in [other for other in self.actors if other.node == actor.node]:
            self._end(other)
            self.actors.remove(other)
            for answer in [answer for answer, owner in running.items() if owner is other]:
                del running[answer]
            if other.task is not None:
                queue.give_back(other.task)

    def _at(self, node: str) -> object:
        return self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)

    def _end(self, actor: _Actor) -> None:
        with contextlib.suppress(Exception):
            self.ray.kill(actor.handle, no_restart=True)


@contextlib.contextmanager
def worker_pool(cluster: Cluster, device: torch.device, folder: Path) -> Iterator[Pool]:
    """Start workers that compute on such a device and write into `folder`; end them after the with-block.

    Raises:
        ClusterUnusable: the cluster does not answer, has too little room, or its nodes differ from this machine.
    """
    threads = torch.get_num_threads()
    gpus = 0.0 if device.type == "cpu" else cluster.gpus_per_worker or 1.0
    if gpus == 0.0 and cluster.gpus_per_worker is not None:
        raise ClusterUnusable(
            f"{option('gpus-per-worker')}: this process computes on the CPU, and so do its workers",
            remedy="leave it out, or start the command on a machine with the accelerator of the workers",
        )
    share = Share(1 if gpus else threads, gpus)
    with connected(cluster) as ray:
        pool = Pool(ray, share, device, threads)
        try:
            pool.start(worker_count(ray, cluster, share))
            pool.check_shared(folder)
            with side_note(pool.describe):
                yield pool
        finally:
            pool.close()


def check_alike(about: About, device: torch.device, place: str) -> None:
    """Refuse a worker with other versions or another device than this process. Raises ClusterUnusable."""
    own = own_versions()
    for name in sorted({*own, *about.versions}):
        there, here = about.versions.get(name, "none"), own.get(name, "none")
        if there != here:
            raise ClusterUnusable(
                f"{place} has {name} {there}, this process {here}",
                remedy="install the same versions on every node: results of different versions differ",
            )
    if about.device != device_name(device):
        raise ClusterUnusable(
            f"{place} computes on {about.device}, this process on {device_name(device)}",
            remedy="start the command on a machine with the workers' device, or name one with --device",
        )


def placed(error: BudcError, place: str) -> BudcError:
    """Return a worker's error, with where it came from."""
    return type(error)(f"{place}: {error}", remedy=error.remedy)
