"""What a Ray actor does: it says what it runs on, sets itself up, and does tasks, one at a time.

Errors of budc's own are returned and not raised, so that they arrive as they are.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from budc.schema.errors import BudcError

Setup = Callable[[dict[str, Any]], object]
"""Done once by every worker, before its tasks: it puts what tasks need into the worker's state."""
Task = Callable[[dict[str, Any]], object]
"""Returns a task's result from the worker's state."""


class About(NamedTuple):
    """Where a worker runs, and on what."""

    node: str
    """Ray's id of the node."""
    host: str
    pid: int
    device: str
    """As `device_name` says it."""
    versions: dict[str, str]


class Failed(NamedTuple):
    """What a task or a setup has raised."""

    error: BudcError


def own_versions() -> dict[str, str]:
    """Return the versions of this process that figures may depend on."""
    from budc.compiler.emit import versions

    return versions()


class Worker:
    """A process that computes. Its class is found by import, so that every node runs its own budc."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}

    def about(self, device: str, threads: int) -> About | Failed:
        """Compute on this kind of device from now on; say where and on what that is."""
        import ray
        import torch

        from budc.progress import silence
        from budc.runtimes.sampling.devices import device_name, find_device

        silence()
        torch.set_num_threads(threads)
        try:
            name = device_name(find_device(device))
        except BudcError as error:
            return Failed(error)
        node = ray.get_runtime_context().get_node_id()
        return About(node, socket.gethostname(), os.getpid(), name, own_versions())

    def sees(self, path: Path, content: bytes) -> bool:
        """Whether a file is here too, and its folder can be written."""
        try:
            own = path.with_name(f"{path.name}-{os.getpid()}")
            own.write_bytes(content)
            own.unlink()
            return path.read_bytes() == content
        except OSError:
            return False

    def set_up(self, setup: Setup) -> Failed | None:
        """Prepare for tasks."""
        try:
            setup(self._state)
        except BudcError as error:
            return Failed(error)
        return None

    def do(self, task: Task) -> object:
        """Return the result of a task, or `Failed`."""
        try:
            return task(self._state)
        except BudcError as error:
            return Failed(error)
