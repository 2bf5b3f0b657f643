"""Work that is killed: `kill -9` after so many measurements, after so many seconds, or at a point of its way.

Each piece of work is a script in a process of its own, forked from one that has imported what the work needs: so its
seconds are those of the work, and a kill lands in it and not among imports. What is written to a journal is reported
as soon as it is on disk, and so are the points that are passed: "evaluation", a step of a run that is measured, and
"file", the opening, renaming or removal of a file or folder below `watched`.
"""

import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "budc.cli.root",
        "budc.compiler.compile",
        "budc.compiler.transfer",
        "budc.compiler.export.onnx",
        "budc.runtimes.onnxruntime.pipeline",
    ]
)
BEFORE = """
import os, sys
os.environ |= {"SOURCE_DATE_EPOCH": "1700000000", "XDG_CACHE_HOME": os.path.dirname(log)}
sys.stdout = sys.stderr = open(log, "w")
import torch
torch.set_num_threads(1)
from budc.compiler.storage.journal import Journal
put = Journal.put
def counted(self, key, value):
    put(self, key, value)
    reports.send(key)
Journal.put = counted

import threading
from collections import Counter
passed, alone = Counter(), threading.Lock()
def at(point):
    with alone:
        passed[point] += 1
        if (point, passed[point]) == end:
            os.kill(os.getpid(), 9)
        reports.send((point,))

from budc.compiler.evaluation import pipeline_rollout
from budc.compiler.export import onnx as export
class StepMachine(pipeline_rollout.StepMachine):
    def step(self, branch, step):
        at("evaluation")
        return super().step(branch, step)
pipeline_rollout.StepMachine = StepMachine
check_graph_parity = export.check_graph_parity
def checked(*given):
    at("evaluation")
    return check_graph_parity(*given)
export.check_graph_parity = checked

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}
def audit(event, given):
    if watched and event in EVENTS and str(given[0]).startswith(watched):
        at("file")
sys.addaudithook(audit)
"""
COMMAND = """
from budc.cli import main
raise SystemExit(main(arguments))
"""
"""A script that calls the command line with `arguments`."""


class Ended(NamedTuple):
    """What became of a piece of work."""

    measured: list[str]
    """Names of the journal's records that it wrote, as far as it could report them."""
    seconds: float
    killed: bool
    passed: Counter[str]
    """How often each kind of point was passed."""


def run(
    script: str,
    log: Path,
    *,
    measurements: int | None = None,
    seconds: float | None = None,
    end: tuple[str, int] | None = None,
    watched: str = "",
    **given: Any,
) -> Ended:
    """Run `script`, in which `given` are names, until it ends, or kill it.

    Args:
        script: Python.
        log: where its output goes.
        measurements: kill it as soon as it has reported so many.
        seconds: kill it then.
        end: kind and number of a point, from 1 on: kill it there.
        watched: where files are looked at.
        given: values that can be pickled.
    """
    receive, send = CONTEXT.Pipe(duplex=False)
    names = given | {"reports": send, "log": str(log), "end": end, "watched": watched}
    process = CONTEXT.Process(target=exec, args=(BEFORE + script, names))
    started = time.monotonic()
    process.start()
    send.close()
    measured: list[str] = []
    passed: Counter[str] = Counter()
    while True:
        left = None if seconds is None else max(0.0, started + seconds - time.monotonic())
        if not receive.poll(left):
            process.kill()
            seconds = None
            continue
        try:
            report = receive.recv()
        except EOFError:
            break
        if isinstance(report, tuple):
            passed.update(report)
            continue
        measured.append(report)
        if len(measured) == measurements:
            process.kill()
    process.join()
    took, code = time.monotonic() - started, process.exitcode
    receive.close()
    process.close()
    assert code in (0, -9), log.read_text(errors="replace")
    return Ended(measured, took, code == -9, passed)


def at_random_moments(
    attempt: Callable[[float | None], Ended],
    check: Callable[[Ended], None],
    kills: int,
    seconds: float,
    resumes: bool,
) -> list[float]:
    """Make attempts that are killed at moments drawn over `seconds`, until `kills` were; `check` each.

    `resumes` says that an attempt goes on where the one before it was killed, and so may be short.
    Returns the moments of the kills. Attempts that were faster than their kill are checked as well.
    """
    rng = random.Random(9)
    moments: list[float] = []
    for _ in range(4 * kills):
        moment = rng.uniform(0, seconds)
        ended = attempt(moment)
        check(ended)
        if ended.killed:
            moments.append(moment)
        elif not resumes:
            # The machine has become faster.
            seconds = min(seconds, ended.seconds)
        if len(moments) == kills:
            return moments
    raise AssertionError(
        f"only {len(moments)} of {4 * kills} attempts could be killed within {seconds:.2f} s"
    )


def at_the_end(
    attempt: Callable[[tuple[str, int]], Ended],
    check: Callable[[Ended], None],
    passed: Counter[str],
    evaluations: int = 3,
    files: int = 12,
) -> list[tuple[str, int]]:
    """Make attempts that are killed within the evaluation and at each of the last accesses to files; `check` each.

    `passed` are the points of an undisturbed attempt. Returns the points at which there was a kill.
    """
    steps, accesses = passed["evaluation"], passed["file"]
    points = [
        ("evaluation", 1 + round(n * (steps - 1) / (evaluations - 1))) for n in range(evaluations) if steps
    ]
    points += [("file", n) for n in range(max(1, accesses - files + 1), accesses + 1)]
    for point in points:
        ended = attempt(point)
        assert ended.killed, point
        check(ended)
    return points


def journalled(folder: Path) -> list[str]:
    """Return the names of the records in the one journal that hides in `folder`, none if there is none."""
    found = [path for path in folder.glob(".*/journal.jsonl") if path.parent.suffix != ".done"]
    assert len(found) <= 1
    # The last line may be torn.
    lines = found[0].read_text().split("\n")[1:-1] if found else []
    return [json.loads(line.partition(" ")[2])["k"] for line in lines]
