"""What a search and a transfer reach: before there were efforts, and now, one row a model and budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quality_methods.efforts import Rows, cells_of, geometric, shown

COLUMNS = {"`thorough`": "joint", "`thorough --align`": "joint-align"}
"""Titles and methods that there are figures of earlier for."""

TRANSFERS = {"transferred": "fitted", "transferred, `--nearby`": "nearby"}


def changes(groups: Rows, before: Iterable[Mapping[str, Any]], transfers: Iterable[Mapping[str, Any]]) -> str:
    """Return the table: error and forwards of each method before and now, and of policies from the model's sibling."""
    earlier = {(row["model"], row["budget"], row["method"]): row for row in before}
    moved = {(row["to"], row["budget"]): row for row in transfers}
    titles = [f"{title}, {when}" for title in COLUMNS for when in ("before", "now")] + list(TRANSFERS)
    lines = [f"| model, NFE | {' | '.join(titles)} |", "|---|" + "---|" * len(titles)]
    for model, budget in cells_of(groups):
        found: list[tuple[float, float] | None] = []
        for method in COLUMNS.values():
            old, now = earlier.get((model, budget, method)), groups.get((model, budget, method))
            found += [
                None if old is None else (old["error"], old["forwards"]),
                None if now is None else geometric(now),
            ]
        transfer = moved.get((model, budget))
        if transfer is not None:
            found += [(transfer["error"][name], transfer["forwards"][name]) for name in TRANSFERS.values()]
        cells = [*map(shown, found), *["no sibling"] * (len(titles) - len(found))]
        lines.append(f"| `{model}`, {budget} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
