"""A report from the files that it is made of to the file that it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from budc.cli.report.page import report_page
from budc.cli.report.sources import read_sources
from budc.schema.files import write_atomic
from budc.schema.plural import counted
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.schema.trust import Trust


def write_report(
    out: Path, paths: Sequence[Path], evaluations: Sequence[Path], trust: Trust, *, must_verify: bool
) -> str:
    """Write the page of `read_sources` to `out`; return one line that says so.

    Raises:
        BudcError: see `read_sources` and `report_page`.
        OutputError: it cannot be written.
    """
    from budc import __version__

    sources = read_sources(paths, evaluations, trust, must_verify=must_verify)
    page = report_page(sources, __version__)
    write_atomic(out, page)
    count = counted(len(sources), "policy", "policies")
    return printable(f"wrote {out}: {count}, {len(page):,} bytes")
