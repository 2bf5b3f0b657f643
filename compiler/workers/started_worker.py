"""A worker as the process that compiles sees it: a Ray actor that is started, becomes ready, does tasks, is ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from budc.compiler.workers.actor import About, Failed, Worker, own_versions
from budc.compiler.workers.ray_cluster import Share
from budc.runtimes.sampling.devices import device_name
from budc.schema.errors import BudcError, ClusterUnusable


@dataclass(eq=False)
class StartedWorker:
    """One worker: its handle, the node that it is on, and the task that it does.

    `starting` are the answers that it owes until it is ready.
    """

    handle: Any
    starting: list[Any]
    node: str = ""
    place: str = "a worker"
    task: int | None = None


@dataclass(frozen=True)
class Starter:
    """Starts workers on a cluster: each takes `share` of its node, and computes on `device` with so many threads."""

    ray: Any
    share: Share
    device: torch.device
    threads: int

    def start(self, setups: Iterable[Any], node: str = "") -> StartedWorker:
        """Start a worker that sets itself up, on a node or wherever there is room. Its answers are not waited for."""
        strategies = self.ray.util.scheduling_strategies
        remote = self.ray.remote(Worker).options(
            num_cpus=self.share.cpus,
            num_gpus=self.share.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node, soft=False)
            if node
            else "SPREAD",
        )
        handle = remote.remote()
        answers = [handle.about.remote(self.device.type, self.threads)]
        return StartedWorker(handle, [*answers, *(handle.set_up.remote(setup) for setup in setups)], node)

    def make_ready(self, worker: StartedWorker) -> None:
        """Take the answers of a worker that has started.

        Raises:
            BudcError: what it raises; ClusterUnusable: it has other versions or another device than this process.
            Exception: one of `losses`, where it is lost.
        """
        about, *others = self.ray.get(worker.starting)
        for answer in (about, *others):
            if isinstance(answer, Failed):
                raise placed(answer.error, worker.place)
        worker.node, worker.place = about.node, f"worker {about.pid} on {about.host}"
        check_alike(about, self.device, worker.place)
        worker.starting = []

    def end(self, worker: StartedWorker) -> None:
        """End a worker, whether or not it is still there."""
        with contextlib.suppress(Exception):
            self.ray.kill(worker.handle, no_restart=True)

    @property
    def losses(self) -> tuple[type[Exception], ...]:
        """What Ray raises where a worker is lost."""
        errors = self.ray.exceptions
        return (
            errors.RayActorError,
            errors.NodeDiedError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.ActorUnschedulableError,
        )


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
