"""A pool on a cluster: connected, checked, started, and ended after a with-block."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from budc.compiler.cluster import Cluster
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.ray_cluster import Share, connected, worker_count
from budc.compiler.workers.started_worker import Starter
from budc.option_names import option
from budc.progress import side_note
from budc.schema.errors import ClusterUnusable, OutputError

PROBE = b"budc"


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
        pool = Pool(Starter(ray, share, device, threads))
        try:
            pool.start(worker_count(ray, cluster, share))
            check_shared(pool, folder)
            with side_note(pool.describe):
                yield pool
        finally:
            pool.close()


def check_shared(pool: Pool, folder: Path) -> None:
    """Refuse a folder that the workers do not see. Raises ClusterUnusable, OutputError."""
    probe = folder.absolute() / f".budc-shared-{os.getpid()}"
    try:
        probe.write_bytes(PROBE)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        answers = [worker.handle.sees.remote(probe, PROBE) for worker in pool.workers]
        for worker, seen in zip(pool.workers, pool.ray.get(answers), strict=True):
            if not seen:
                raise ClusterUnusable(
                    f"{folder.absolute()}: {worker.place} does not see this folder, or cannot write there",
                    remedy="put --out (for a replay TMPDIR) on a file system that all nodes share, at one path",
                )
    finally:
        probe.unlink(missing_ok=True)
