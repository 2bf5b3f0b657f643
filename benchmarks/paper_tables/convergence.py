"""Convergence: the lowest loss over the candidates scored, from several random starts, and of `joint`.

Random starts are those of the paper's search, on one prompt, as its authors ran it. The traces are those of
`budc compile --trace`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence

from budc.schema.report_names import LATENT_MSE
from paper_tables.asked import Asked, Row
from paper_tables.markdown import figure, table

AFTER = (1, 25, 50, 100, 200)


def measure(asked: Asked) -> Iterator[Row]:
    """Yield a row for each budget, search and start."""
    for nfe in asked.budgets:
        for seed in asked.seeds:
            yield _row(asked, nfe, "paper", seed, calibration_size=1)
        yield _row(asked, nfe, "joint", 0)


def _row(asked: Asked, nfe: int, search: str, seed: int, **choices: int) -> Row:
    label = f"{search}-seed{seed}"
    trace = asked.folder / f"{label}-nfe{nfe}.jsonl"
    artifact = asked.compiled(nfe, label, search=search, seed=seed, trace=trace, **choices)
    points = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    best = [point["best"] for point in points]
    (error,) = [metric for metric in artifact.document.quality.metrics if metric.name == LATENT_MSE]
    return {
        "budget": nfe,
        "search": search,
        "seed": seed,
        "objective": points[0]["objective"],
        "candidates": len(points),
        "forwards": points[-1]["forwards"],
        # The lowest loss and the candidate that reached it.
        "best": [[at + 1, value] for at, value in enumerate(best) if at == 0 or value != best[at - 1]],
        "steps": [list(branch.step_mask().compute_steps) for branch in artifact.document.policy.branches],
        "heldOut": error.geometric_mean,
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return a table for each budget, and how many different masks the starts ended at."""
    text = ""
    for nfe in dict.fromkeys(row["budget"] for row in rows):
        cell = [row for row in rows if row["budget"] == nfe]
        starts = [row for row in cell if row["search"] == "paper"]
        masks = {json.dumps(row["steps"]) for row in starts}
        ends = [row["heldOut"] for row in starts]
        heads = [
            "search",
            *(f"after {count}" for count in AFTER),
            "at the end",
            "candidates",
            "forwards",
            "held out",
        ]
        text += f"\nNFE {nfe}, lowest loss so far:\n\n{table(heads, map(_cells, cell))}\n"
        text += (
            f"The {len(starts)} starts end at {len(masks)} different masks, with held-out errors of {min(ends):.2g} to "
            f"{max(ends):.2g}. Their loss is the error on one prompt, that of `joint` a geometric mean over those that "
            "it searches on: the last column compares them.\n"
        )
    return text.lstrip("\n")


def _cells(row: Row) -> list[str]:
    title = f"paper's, start {row['seed']}" if row["search"] == "paper" else "`joint`"
    best = [(at, math.exp(loss) if "log" in row["objective"] else loss) for at, loss in row["best"]]
    lowest = {
        count: [loss for at, loss in best if at <= count][-1] for count in AFTER if count <= row["candidates"]
    }
    shown = [figure(lowest.get(count)) for count in AFTER]
    return [
        title,
        *shown,
        figure(best[-1][1]),
        str(row["candidates"]),
        f"{row['forwards']:,}",
        figure(row["heldOut"]),
    ]
