"""The measured tables of docs/cost.md, which stand between two comments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quality_methods.changes import changes
from quality_methods.effort_comparison import BEFORE, compared, compared_with_before
from quality_methods.efforts import draws_of, measured
from quality_methods.tables import Row

RESULTS = Path(__file__).parents[1] / "results"
BEGIN, END = "<!-- written by benchmarks/quality.py --report -->", "<!-- end -->"


def written_into(page: str, rows: Sequence[Row]) -> str:
    """Return a page with its tables from these rows, and from results of earlier searches and transfers.

    Where these rows have no later draws, they are those of `quality-draws.json`. Those of the search before are of
    `quality-before-efforts.json`.

    Raises:
        ValueError: the page has no such comments.
    """
    later = [row for row in rows if row.get("draw")] or _results("quality-draws.json")["rows"]
    earlier, transfers = _results("quality-before-efforts.json"), _results("transfer-cpu.json")
    before = [{**row, "method": BEFORE} for row in earlier["draws"]]
    draws = draws_of([*(row for row in rows if not row.get("draw")), *later, *before])
    groups = draws[0]
    start, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{BEGIN!r} and {END!r} do not stand in the page")
    tables = [
        measured(groups),
        compared(draws),
        CHANGES.format(commit=earlier["commit"]),
        compared_with_before(draws),
        FIRST_DRAW,
        changes(groups, earlier["rows"], transfers["rows"]),
    ]
    text = "\n".join(tables)
    return f"{start}{BEGIN}\n\n{text}\n{END}{after}"


CHANGES = """\
"Before" is the search that there was when efforts were begun, commit {commit}. It used all prompts, as `thorough` does,
and had fewer starts and moves ([ADR 15](adr/0015-efforts.md)). Its code prints the figures of the first draw; for the
others it was given the samples of `benchmarks/quality_methods/draws.py`. Each effort is compared with it on the same
draws, as errors relative to those of that search:
"""

FIRST_DRAW = """\
Errors and forwards on the first draw. A transferred policy comes from the model's sibling ([transfer.md](transfer.md)).
"""


def _results(name: str) -> Mapping[str, Any]:
    results: Mapping[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return results
