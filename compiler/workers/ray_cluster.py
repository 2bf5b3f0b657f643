"""Connecting to a Ray cluster: what can be refused is refused here, before anything is loaded.

Ray is imported here and nowhere else in this process.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from budc.compiler.cluster import Cluster
from budc.option_names import option
from budc.schema.errors import ClusterUnusable
from budc.schema.plural import counted

ANSWER_SECONDS = 10.0
LOCAL_STARTS = 3
"""How often a local cluster is started: Ray gives up after half a minute, which a busy machine may need."""
OBJECT_STORE_BYTES = 256 << 20
"""Memory for objects on a local cluster: embeddings of prompts, and nothing larger."""


@dataclass(frozen=True)
class Share:
    """What one worker takes of its node."""

    cpus: int
    gpus: float


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Connect to a cluster, or start a local one, for the length of a with-block; yield Ray's module.

    Raises:
        ClusterUnusable: nothing answers at its address, or Ray cannot use it.
    """
    if cluster.endpoint is not None:
        _check_answers(cluster.address, *cluster.endpoint)
    # Neither statistics to others, nor a warning about what a later release does.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.util.scheduling_strategies

    own: dict[str, Any] = {}
    if cluster.address == "local":
        # Ray would let its workers wait for whatever else this machine does.
        os.environ.setdefault("RAY_worker_niceness", "0")
        own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    _begin(ray, cluster.address, own)
    try:
        yield ray
    finally:
        ray.shutdown()


def _begin(ray: Any, address: str, own: dict[str, Any]) -> None:
    """Connect, or start. Raises ClusterUnusable."""
    for left in reversed(range(LOCAL_STARTS if address == "local" else 1)):
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
            return
        except Exception as error:  # Ray raises whatever it likes, Exception itself among it.
            ray.shutdown()
            if left and "timed out" in str(error):
                continue
            raise ClusterUnusable(
                f"{option('ray', address)}: {first_line(error)}",
                remedy="start Ray there (`ray start --head`) with this Python and this Ray, or use --ray local",
            ) from error


def worker_count(ray: Any, cluster: Cluster, share: Share) -> int:
    """Return how many workers to start.

    Raises:
        ClusterUnusable: the cluster has less than was asked for, or nothing free.
    """
    free = ray.available_resources()
    room = math.floor(free.get("CPU", 0) / share.cpus + 1e-9)
    if share.gpus:
        # Parts of a GPU cannot be put together: two workers of 0.6 need two.
        gpus = free.get("GPU", 0)
        whole = math.floor(gpus + 1e-9) * math.floor(1 / share.gpus + 1e-9)
        room = min(room, whole if share.gpus <= 1 else math.floor(gpus / share.gpus))
    if room >= (cluster.workers or 1):
        return cluster.workers or room
    needs = [f"{share.gpus:g} GPUs"] * bool(share.gpus) + [counted(share.cpus, "CPU")]
    have = [f"{free.get('GPU', 0):g} GPUs"] * bool(share.gpus) + [f"{free.get('CPU', 0):g} CPUs"]
    raise ClusterUnusable(
        f"{option('ray', cluster.address)}: {counted(cluster.workers or 1, 'worker')} of {' and '.join(needs)} each "
        f"were asked for, {' and '.join(have)} are free",
        remedy="ask for fewer with --workers, or for less of a GPU with --gpus-per-worker; without a GPU each worker "
        "takes OMP_NUM_THREADS CPUs",
    )


def _check_answers(address: str, host: str, port: int) -> None:
    # Ray itself waits for a minute, and then ends the process.
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError as error:
        raise ClusterUnusable(
            f"{option('ray', address)}: nothing answers there: {error.strerror or error}",
            remedy="start Ray there (`ray start --head`), or use --ray local",
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error of Ray's that says something."""
    return next(
        (line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__
    )
