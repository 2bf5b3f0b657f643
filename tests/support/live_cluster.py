"""A Ray cluster that stands before its drivers come and stays when they go, on this machine. It asks for a token."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import budc
from budc.compiler.workers.cluster_address import check_answers
from budc.schema.errors import ClusterUnusable

STARTS = 3
"""How often it is started: Ray gives up after half a minute, which a busy machine may need."""


class LiveCluster(NamedTuple):
    """Its addresses, by their kind, and what a driver has in its environment."""

    addresses: dict[str, str]
    environment: dict[str, str]


@contextmanager
def live_cluster(cpus: int) -> Iterator[LiveCluster]:
    """Start one that says it has so many CPUs; end it, and nobody else's, after the with-block."""
    # Below a short path: the names of sockets have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        environment = {"RAY_TMPDIR": folder, "RAY_AUTH_TOKEN_PATH": str(token)}
        head, client = _free_ports(2)
        addresses = {
            "auto": "auto",
            "host:port": f"127.0.0.1:{head}",
            "ray://host:port": f"ray://127.0.0.1:{client}",
        }
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--num-cpus={cpus}"),
            *(f"--port={head}", f"--ray-client-server-port={client}", "--include-dashboard=false"),
            *("--object-store-memory=200000000", "--disable-usage-stats"),
        ]
        process = _started(command, environment, Path(folder) / "log", addresses)
        try:
            yield LiveCluster(addresses, environment)
        finally:
            process.terminate()
            process.wait(60)


def _started(
    command: list[str], environment: Mapping[str, str], log: Path, addresses: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    path = f"{Path(budc.__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    for _ in range(STARTS):
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment, "RAY_AUTH_MODE": "token", "PYTHONPATH": path},
                stdout=out,
                stderr=out,
            )
        while process.poll() is None:
            if all(map(_answers, addresses.values())):
                return process
            time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace"))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _answers(address: str) -> bool:
    try:
        check_answers(address, address)
    except ClusterUnusable:
        return False
    return True
