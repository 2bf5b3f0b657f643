"""Trace: what a search scored, in its order, as JSON, one candidate a line. A resumed search has the same trace."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from budc.compiler.search.space import Candidate
from budc.schema.files import write_atomic


class TracePoint(msgspec.Struct, frozen=True):
    """A candidate, its loss on the prompts of its group, and the forwards of the search up to it."""

    candidate: Candidate
    loss: float
    """Infinite where final latents are not finite."""
    forwards: int


def lines(nfe: int, objective: str, trace: Iterable[TracePoint]) -> list[str]:
    """Return the trace of one budget: the loss of each candidate on its group of prompts, and the lowest so far there.

    Losses are null where they are infinite.
    """
    best: dict[int, float] = {}
    found = []
    for number, point in enumerate(trace, 1):
        candidate = point.candidate
        best[candidate.group] = min(best.get(candidate.group, math.inf), point.loss)
        entry = {
            "nfe": nfe,
            "candidate": number,
            "steps": [list(mask.compute_steps) for mask in candidate.masks],
            "rule": candidate.rule,
            "payload": candidate.payload,
            "group": candidate.group,
            "objective": objective,
            "loss": _finite(point.loss),
            "best": _finite(best[candidate.group]),
            "forwards": point.forwards,
        }
        found.append(json.dumps(entry))
    return found


def write_trace(path: Path, traces: Sequence[tuple[int, str, Sequence[TracePoint]]]) -> None:
    """Write the traces of all budgets, each (NFE, objective, trace).

    Raises:
        OutputError: the file cannot be written.
    """
    every = [line for nfe, objective, trace in traces for line in lines(nfe, objective, trace)]
    write_atomic(path, "".join(f"{line}\n" for line in every).encode())


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
