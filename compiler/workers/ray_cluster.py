"""Connecting to a Ray cluster: what can be refused is refused here, before anything is loaded.

Ray is imported here and nowhere else in this process.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from budc.compiler.cluster import Cluster
from budc.compiler.workers.cluster_address import check_answers, show_token
from budc.option_names import option
from budc.progress import notice, stage
from budc.schema.errors import ClusterUnusable
from budc.schema.foreign_error import reason_of
from budc.schema.plural import counted

_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_LOCAL = {"RAY_worker_niceness": "0"}
STARTS = 3
"""How often to start or connect: Ray gives up after half a minute, which a busy machine may need."""
_TOO_SLOW = ("timed out", "Proxy failed to Connect to backend")
"""What Ray says where a local cluster, or the process that a `ray://` address starts for a driver, takes longer."""
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
    local, address = cluster.address == "local", cluster.address
    check_answers(option("ray", address), address)
    # Ray reads these when it is imported. It sends no statistics, and its workers on this machine wait for nothing else
    # that it does.
    for name, value in (_SETTINGS | (_LOCAL if local else {})).items():
        os.environ.setdefault(name, value)
    show_token()
    stage("connect", f"Ray, {address}")
    import ray
    import ray.util.scheduling_strategies

    if address == "auto":
        address = _of_this_machine()
        check_answers(f"{option('ray', 'auto')} ({address})", address)
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if local else {}
    try:
        for left in reversed(range(STARTS)):
            if _began(ray, cluster.address, left, address=address, **own):
                break
        yield ray
    finally:
        ray.shutdown()


def _began(ray: Any, named: str, left: int, **given: Any) -> bool:
    """Connect, or start; return False where that may be tried again, `left` times. Raises ClusterUnusable."""
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **given)
        return True
    except Exception as error:  # Ray raises whatever it likes, Exception itself among it.
        ray.shutdown()
        if left and any(words in str(error) for words in _TOO_SLOW):
            notice(f"{option('ray', named)}: Ray was too slow to start and is tried again")
            return False
        raise ClusterUnusable(
            f"{option('ray', named)}: {reason_of(error)}",
            remedy="start Ray there (`ray start --head`) with this Python and this Ray, put the token that it asks for "
            "into RAY_AUTH_TOKEN, or use --ray local",
        ) from error


def _of_this_machine() -> str:
    """Return the address of the cluster that this machine belongs to. Raises ClusterUnusable."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        address: str = os.environ.get("RAY_ADDRESS") or canonicalize_bootstrap_address("auto")
    except ConnectionError as error:
        raise ClusterUnusable(
            f"{option('ray', 'auto')}: this machine belongs to no cluster",
            remedy="start Ray here (`ray start`), name another address, or use --ray local",
        ) from error
    return address


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
