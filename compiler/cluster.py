"""Cluster: which Ray cluster computes, with how many workers; what the user says of it, checked without Ray."""

from __future__ import annotations

import re
from dataclasses import dataclass

from budc.option_names import option
from budc.schema.errors import UsageError

MAX_WORKERS = 4096
_ADDRESS = re.compile(r"(?:ray://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster: `local`, one of this machine for the length of the command; `auto`, the one that this machine
    belongs to; or an address.

    `workers` is how many to start, None for as many as its GPUs, or its CPUs, suffice for.
    """

    address: str
    workers: int | None = None
    gpus_per_worker: float | None = None


def endpoint_of(address: str) -> tuple[str, int] | None:
    """Return host and port of an address; None for `local` and `auto`."""
    match = _ADDRESS.fullmatch(address)
    return None if match is None else (match["host"].strip("[]"), int(match["port"]))


def parse_cluster(ray: str | None, workers: int | None, gpus_per_worker: float | None) -> Cluster | None:
    """Return the cluster that the user names, None where none is named.

    Raises:
        UsageError: it is no address, a number is out of range, or workers are asked for without a cluster.
    """
    if ray is None:
        for name, given in (("workers", workers), ("gpus-per-worker", gpus_per_worker)):
            if given is not None:
                raise UsageError(
                    f"{option(name)}: says how {option('ray')} is used", remedy="add --ray local"
                )
        return None
    match = _ADDRESS.fullmatch(ray)
    if ray not in ("auto", "local") and not (match and 1 <= int(match["port"]) <= 65535):
        raise UsageError(
            f"{option('ray')}: {ray[:80]!r} is no address of a Ray cluster",
            remedy="local, auto, host:port, or ray://host:port",
        )
    if workers is not None and not 1 <= workers <= MAX_WORKERS:
        raise UsageError(f"{option('workers')}: is {workers}, expected 1 to {MAX_WORKERS}")
    share = gpus_per_worker
    if share is not None and not (0 < share <= 1 or (1 <= share <= 64 and share == int(share))):
        raise UsageError(
            f"{option('gpus-per-worker')}: is {share:g}, expected a share of one GPU, or a whole number",
            remedy="0.5 lets two workers share a GPU",
        )
    return Cluster(ray, workers, gpus_per_worker)
