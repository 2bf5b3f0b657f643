"""How fast a model folder is hashed, beside `sha256sum` on the same files: GB/s and what the cache saves.

    python benchmarks/hashing.py --megabytes 400 --files 4 --json results.json
    python benchmarks/hashing.py --megabytes 28000 --files 14 --read

The second counts the bytes that are read for a model's digests and tensor root, the first time and when they are
remembered (Linux); its files are sparse, so they take no disk space.

Files are made in a temporary folder and are in the page cache when they are timed, so this measures processors and not
disks. The order of the methods is rotated in every round; the figure is the median.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
from command_line import COUNT, PATH, script

from budc.schema import digest_cache
from budc.schema.digest_cache import DigestCache
from budc.schema.hashing import scan_files, sha256_files


def make(folder: Path, files: int, size: int, *, sparse: bool = False) -> list[Path]:
    """Write safetensors files of 16 tensors each: random bytes, or sparse ones that take no disk space."""
    paths = []
    for index in range(files):
        tensor = size // 16
        header = json.dumps(
            {
                f"{index}.{k}": {
                    "dtype": "U8",
                    "shape": [tensor],
                    "data_offsets": [k * tensor, (k + 1) * tensor],
                }
                for k in range(16)
            }
        ).encode()
        path = folder / f"model-{index}.safetensors"
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            if sparse:
                file.truncate(file.tell() + 16 * tensor)
            for _ in range(0 if sparse else 16):
                file.write(os.urandom(tensor))
        paths.append(path)
    return paths


def sha256sum(paths: list[Path], at_once: int) -> None:
    """Run coreutils over the files, `at_once` processes at a time."""
    command = ["xargs", "-0", "-n1", f"-P{at_once}", "sha256sum"]
    subprocess.run(command, input="\0".join(map(str, paths)).encode(), check=True, stdout=subprocess.DEVNULL)


def bytes_read(work: Callable[[], object]) -> int:
    """Return how many bytes this process reads while `work` runs."""

    def count() -> int:
        counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(counters["rchar"])

    before = count()
    work()
    return count() - before


def read_twice(folder: Path, files: int, size: int) -> str:
    """Return how much of a model is read the first time, and by the next process that asks."""
    paths = make(folder, files, size, sparse=True)
    total = sum(path.stat().st_size for path in paths)
    digest_cache._SETTLE_NS = 0
    first, again = (
        bytes_read(lambda: DigestCache(folder / "digests.json").with_root(paths)) / total for _ in range(2)
    )
    return f"{total / 1e9:.1f} GB in {files} files: read {first:.4f} times at first, {again:.4f} times when remembered"


@script(__doc__)
@click.option("--megabytes", type=COUNT, default=400, show_default=True, help="Of all files together.")
@click.option("--files", type=COUNT, default=4, show_default=True)
@click.option("--rounds", type=COUNT, default=5, show_default=True)
@click.option("--read", "reading", is_flag=True, help="Count what is read of sparse files; time nothing.")
@click.option("--json", "out", type=PATH, help="Also write the figures here.")
def main(megabytes: int, files: int, rounds: int, reading: bool, out: Path | None) -> None:
    """Measure and print."""
    if reading:
        with tempfile.TemporaryDirectory() as name:
            click.echo(read_twice(Path(name), files, megabytes * 1_000_000 // files))
        return
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        paths = make(Path(name), files, megabytes * 1_000_000 // files)
        total = sum(path.stat().st_size for path in paths)
        digest_cache._SETTLE_NS = 0
        remembered = DigestCache(Path(name) / "digests.json")
        remembered(paths)
        methods: dict[str, Callable[[], object]] = {
            "sha256sum, one process": lambda: sha256sum(paths, 1),
            f"sha256sum, {cores} processes": lambda: sha256sum(paths, cores),
            "budc, one thread": lambda: sha256_files(paths, workers=1),
            f"budc, {cores} threads": lambda: sha256_files(paths),
            f"budc, files and tensors, {cores} threads": lambda: scan_files(paths),
            "budc, remembered": lambda: DigestCache(Path(name) / "digests.json")(paths),
        }
        taken: dict[str, list[float]] = {method: [] for method in methods}
        names = list(methods)
        for index in range(rounds + 1):
            for method in names[index % len(names) :] + names[: index % len(names)]:
                started = time.perf_counter()
                methods[method]()
                if index:  # the first round warms up
                    taken[method].append(time.perf_counter() - started)
    seconds = {method: statistics.median(times) for method, times in taken.items()}
    record = {
        "command": f"python {' '.join(sys.argv)}",
        "machine": {"cores": cores, "cpu": _processor(), "python": platform.python_version()},
        "load": os.getloadavg()[0],
        "bytes": total,
        "files": files,
        "seconds": seconds,
    }
    for method, median in seconds.items():
        click.echo(f"{method:<40} {median:8.3f} s  {total / median / 1e9:8.2f} GB/s")
    if out is not None:
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    if shutil.which("lscpu"):
        lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("Model name")), "")
    return platform.processor()


if __name__ == "__main__":
    main()
