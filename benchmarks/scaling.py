"""Two Ray workers of one thread each against one, and against two plain processes that share the tasks beforehand.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py --rounds 7 --json benchmarks/results/scaling-cpu.json

The tasks are those of a compile: candidates rolled out on calibration prompts, and chunks of a report. All processes
are started, and have loaded the model, before anything is timed. The order of the three changes from round to round,
and ratios are taken within a round, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
from command_line import COUNT, MODEL, PATH, script
from saving import save_rows

from budc.cli.dependencies import quiet_libraries
from budc.compiler.cluster import Cluster
from budc.compiler.compile_task import compile_task, measured_settings
from budc.compiler.loaded_target import load_target
from budc.compiler.policy_source import make_request
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.search import Candidate
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.storage.tensors import chunk_spans
from budc.compiler.workers.actor import Task
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.report_tasks import LatentChunk
from budc.compiler.workers.search_tasks import CALIBRATION, RollOut
from budc.compiler.workers.target_workers import HELD_OUT, hire, setups, target_pool

STEPS, NFE, CANDIDATES = 12, 4, 24


@dataclass(frozen=True)
class Again:
    """Forget what was rolled out, and read the reference run again: before a round, untimed."""

    first: RollOut

    def __call__(self, state: dict[str, Any]) -> None:
        state.pop(CALIBRATION, None)
        self.first(state)


class PlainProcess:
    """A process without Ray that does a list of tasks, one after another."""

    def __init__(self, given: Sequence[Callable[[dict[str, Any]], object]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, list(given)), daemon=True)
        self.process.start()
        self.connection.recv()


def serve(connection: Connection, given: Sequence[Callable[[dict[str, Any]], object]]) -> None:
    """Do what is sent, until nothing is."""
    quiet_libraries()
    state: dict[str, Any] = {}
    for setup in given:
        setup(state)
    connection.send(None)
    while (tasks := connection.recv()) is not None:
        for task in tasks:
            task(state)
        connection.send(None)


def in_plain(processes: Sequence[PlainProcess], tasks: Sequence[Task]) -> None:
    """Give every process its share, and wait for all."""
    for number, process in enumerate(processes):
        process.connection.send(tasks[number :: len(processes)])
    for process in processes:
        process.connection.recv()


def in_pool(pool: Pool, tasks: Sequence[Task]) -> None:
    """Do tasks on the workers of a pool."""
    for _ in pool.run(tasks):
        pass


def timed(run: Callable[[Sequence[Task]], None], tasks: Sequence[Task], again: Sequence[Task]) -> float:
    """Return the seconds that tasks take, once every worker has done `again`."""
    run(again)
    started = time.perf_counter()
    run(tasks)
    return time.perf_counter() - started


def candidates() -> list[Candidate]:
    """Return masks drawn at random."""
    rng = random.Random(0)
    steps = [(0, *sorted(rng.sample(range(1, STEPS), NFE - 1))) for _ in range(3 * CANDIDATES)]
    return [
        Candidate.of(STEPS, mask, "tracked", "velocity") for mask in list(dict.fromkeys(steps))[:CANDIDATES]
    ]


def measure(folder: Path, model: str, rounds: int) -> list[dict[str, Any]]:
    """Return the seconds of every round and the ratios' medians, for search and report."""
    given = {"model": model, "steps": STEPS, "budget": str(NFE), "effort": "fast", "no_frames": True}
    plan = make_request({}, given | {"out": folder / "p.budc.json", "batch": 8}).resolve()
    with target_pool(Cluster("local", 2), plan.target, plan.policies[0].path) as pool:
        assert pool is not None
        loaded = load_target(plan.target)
        sampler = loaded.model.sampler(STEPS)
        task = compile_task(plan, loaded, sampler, NFE)
        with loaded.journal(plan.policies[0].path, measured_settings(plan, sampler), 8) as journal:
            hired = hire(pool, loaded, task, journal)
            finder = Finder(Calibration(task, journal, hired.search))
            plain = [PlainProcess(setups(loaded, task, journal)) for _ in range(2)]
            reference = {key: value for key, value in journal.records.items() if "full" in key}
            rolled = [
                RollOut(reference, finder.calibration.stages.spans[0], candidate)
                for candidate in candidates()
            ]
            ways: dict[str, Callable[[Sequence[Task]], None]] = {
                "one worker": lambda tasks: in_pool(replace(pool, workers=pool.workers[:1]), tasks),
                "two workers": lambda tasks: in_pool(pool, tasks),
                "two plain": lambda tasks: in_plain(plain, tasks),
            }
            policy = full_policy(STEPS, loaded.model.profile.branches)
            spans = chunk_spans(journal, len(loaded.conditions.held_out))
            rows = []
            for what in ("search", "report"):
                seconds: dict[str, list[float]] = {way: [] for way in ways}
                for turn in range(rounds):
                    for number in range(len(ways)):
                        way = list(ways)[(turn + number) % len(ways)]
                        label = f"{turn} {number}"
                        tasks: list[Task] = [
                            LatentChunk(HELD_OUT, journal.folder, {}, label, policy, sampler, span)
                            for span in spans
                        ]
                        again: list[Task] = [Again(rolled[0])] * 2
                        seconds[way].append(
                            timed(ways[way], rolled[1:] if what == "search" else tasks, again)
                        )
                rows.append(
                    {
                        "work": what,
                        "tasks": len(tasks if what == "report" else rolled[1:]),
                        **summary(seconds),
                    }
                )
            for process in plain:
                process.connection.send(None)
    return rows


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the seconds, and the medians of the ratios within a round."""
    rounds = [dict(zip(seconds, values, strict=True)) for values in zip(*seconds.values(), strict=True)]
    return {
        "timesOneWorker": statistics.median(row["one worker"] / row["two workers"] for row in rounds),
        "timesTwoPlain": statistics.median(row["two plain"] / row["two workers"] for row in rounds),
        "seconds": seconds,
    }


@script(__doc__)
@click.option("--model", type=MODEL, default="wan2.1-nano", show_default=True)
@click.option("--rounds", type=COUNT, default=7, show_default=True)
@click.option("--json", "target", type=PATH, help="where the rows go")
def main(model: str, rounds: int, target: Path | None) -> None:
    """Measure, and print the ratios."""
    quiet_libraries()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(Path(name), model, rounds)
    for row in rows:
        print(
            f"{row['work']}: {row['tasks']} tasks; two workers are {row['timesOneWorker']:.2f} times as fast as one, "
            f"{row['timesTwoPlain']:.2f} times as fast as two plain processes"
        )
    if target is not None:
        save_rows(target, [{"model": model, **row} for row in rows])


if __name__ == "__main__":
    main()
