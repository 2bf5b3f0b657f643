"""Generalisation: policies and other methods in settings that they were not made for.

Each setting is measured against its own full run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paper_tables import methods
from paper_tables.asked import Asked, Row
from paper_tables.markdown import figure, table


def measure(asked: Asked) -> Iterator[Row]:
    """Yield a row for each setting and method."""
    return methods.measure(asked)


def markdown(rows: Sequence[Row]) -> str:
    """Return a table for each budget: a row for each method, a column for each setting."""
    text = ""
    for nfe in dict.fromkeys(row["budget"] for row in rows):
        cells = {
            (row["title"], row["setting"]): row
            for row in rows
            if row["budget"] == nfe and row["method"] != "full"
        }
        settings = list(dict.fromkeys(setting for _, setting in cells))
        titles = sorted(
            {title for title, _ in cells}, key=lambda title: methods.error(cells[title, settings[0]])
        )
        lines = [
            [title, *(figure(methods.error(cells[title, setting])) for setting in settings)]
            for title in titles
        ]
        heads = ["method", *(f"`{setting}`" if "=" in setting else setting for setting in settings)]
        text += f"\nNFE {nfe}, latent error (geometric mean):\n\n" + table(heads, lines)
    return text.lstrip("\n")
