"""The reference runs of a compile on several Slurm nodes, one job for each shard, then the search on one.

    python compile.py --jobs 8 --partition gpu -- --model wan2.1-14b --budget 10 --weights /models/wan --key release.key

Everything after `--` is given to `budc compile`. `--cluster local` runs the jobs as processes of this machine. When
a job was stopped, the same call goes on where it stopped. Needs `pip install submitit`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import submitit


def run_budc(arguments: Sequence[str]) -> int:
    """Run `budc compile` in a job; return its exit code."""
    return subprocess.run([sys.executable, "-m", "budc", "compile", *arguments], check=False).returncode


def main() -> int:
    """Submit a job for each shard, wait for all of them, then submit the search."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many jobs share the reference runs")
    parser.add_argument("--folder", type=Path, default=Path("shards"), help="where all nodes can write")
    parser.add_argument("--out", type=Path, default=Path("policy.budc.json"))
    parser.add_argument("--cluster", choices=["slurm", "local"], default="slurm")
    parser.add_argument("--partition")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of a job")
    parser.add_argument("--hours", type=float, default=12)
    parser.add_argument("flags", nargs="+", help="flags of `budc compile`, after --")
    asked = parser.parse_args()

    executor = submitit.AutoExecutor(folder=asked.folder / "logs", cluster=asked.cluster)
    executor.update_parameters(name="budc", timeout_min=round(60 * asked.hours), gpus_per_node=asked.gpus)
    if asked.partition:
        executor.update_parameters(slurm_partition=asked.partition)
    with executor.batch():
        shards = [
            executor.submit(
                run_budc, [*asked.flags, "--shard", f"{number}/{asked.jobs}", "--out", str(asked.folder)]
            )
            for number in range(1, asked.jobs + 1)
        ]
    failed = [number for number, job in enumerate(shards, 1) if job.result() != 0]
    if failed:
        print(f"shards {failed} failed; see {asked.folder / 'logs'}, then call this again", file=sys.stderr)
        return 1
    search = executor.submit(run_budc, [*asked.flags, "--merge", str(asked.folder), "--out", str(asked.out)])
    code: int = search.result()
    print(search.stdout() or "")
    return code


if __name__ == "__main__":
    sys.exit(main())
