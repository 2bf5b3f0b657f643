"""Transfer: policies of one size of a model on another, see `benchmarks/transfer.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import transfer

from paper_tables.asked import Asked, Row


def measure(asked: Asked) -> Iterator[Row]:
    """Yield a row for each budget."""
    settings = {
        "calibration_size": asked.calibration,
        "held_out_size": asked.held_out,
        "effort": asked.effort,
        "device": asked.device,
    }
    return transfer.measured([(asked.model, asked.to)], asked.budgets, 0, asked.folder, settings)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return transfer.table(rows) + "\n"
