"""The measured tables of docs/cost.md, which stand between two comments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quality_methods.changes import changes
from quality_methods.efforts import compared, grouped, measured
from quality_methods.tables import Row

RESULTS = Path(__file__).parents[1] / "results"
BEGIN, END = "<!-- written by benchmarks/quality.py --report -->", "<!-- end -->"


def written_into(page: str, rows: Iterable[Row]) -> str:
    """Return a page with its tables from these rows, and from the results of earlier searches and of transfers.

    Raises:
        ValueError: the page has no such comments.
    """
    groups = grouped(rows)
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{BEGIN!r} and {END!r} do not stand in the page")
    changed = changes(groups, _rows("quality-before-efforts.json"), _rows("transfer-cpu.json"))
    tables = "\n".join([measured(groups), compared(groups), CHANGES, changed])
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


CHANGES = """\
Before there were efforts, every search was what `thorough` is now but for its starts and moves
([ADR 15](adr/0015-efforts.md)). A transferred policy comes from the model's sibling
([transfer.md](transfer.md)).
"""


def _rows(name: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = json.loads((RESULTS / name).read_text(encoding="utf-8"))["rows"]
    return rows
