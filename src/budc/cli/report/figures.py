"""A figure of the page: a chart, its legend, and the numbers that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Cell = str | float | int | None


@dataclass(frozen=True)
class LegendEntry:
    """A series, by its place in the palette."""

    index: int
    title: str
    marker: str
    """The character that looks like its marker."""


@dataclass(frozen=True)
class Figure:
    """A chart with its numbers."""

    key: str
    """Unique on the page."""
    title: str
    note: str
    svg: str
    """SVG in which every text is escaped."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    legend: Sequence[LegendEntry] = ()

    @property
    def data(self) -> Mapping[str, object]:
        """The numbers as the page's script reads them."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}
