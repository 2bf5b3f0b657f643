"""The page: the template filled, with its style and script inside, and a policy that lets a browser load no others."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from budc.cli.report.charts import quality_figures, tail_figures
from budc.cli.report.comparisons import Comparison, comparisons
from budc.cli.report.figures import Figure
from budc.cli.report.policy_section import PolicySection, policy_section
from budc.cli.report.svg import RC
from budc.schema.errors import OutputError

if TYPE_CHECKING:
    from budc.cli.report.sources import Source

LARGEST = 5_000_000
"""Bytes of a page, for each of its policies."""


@dataclass(frozen=True)
class ComparisonSection:
    """What a page shows of one comparison."""

    key: str
    comparison: Comparison
    quality: Sequence[Figure]
    tails: Sequence[Figure]


def report_page(sources: Sequence[Source], version: str) -> bytes:
    """Return the report of policies as one file of HTML; `version` is that of budc.

    Raises:
        OutputError: the page would be larger than `LARGEST` bytes a policy.
    """
    import matplotlib as mpl

    with mpl.rc_context(RC):
        sections = [
            policy_section(source, f"policy-{index}") for index, source in enumerate(sources, start=1)
        ]
        compared = [
            ComparisonSection(
                key=f"compared-{index}",
                comparison=comparison,
                quality=quality_figures(comparison, f"compared-{index}"),
                tails=tail_figures(comparison, f"compared-{index}"),
            )
            for index, comparison in enumerate(comparisons(sources), start=1)
        ]
    page = _render(sections=sections, compared=compared, version=version)
    if len(page) > LARGEST * len(sources):
        raise OutputError(
            f"the report would have {len(page):,} bytes, and {LARGEST:,} a policy are the most",
            remedy="give fewer evaluations, or fewer policies at a time",
        )
    return page


def _render(
    *, sections: Sequence[PolicySection], compared: Sequence[ComparisonSection], version: str
) -> bytes:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("budc.cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _text("page.css"), _text("page.js")
    figures = [figure for part in compared for figure in (*part.quality, *part.tails)]
    figures += [section.mask for section in sections]
    figures += [frames.numbers for section in sections for frames in section.frames]
    return (
        environment.get_template("page.html")
        .render(
            sections=sections,
            compared=compared,
            unverified=[item for section in sections for item in section.unverified],
            version=version,
            data={figure.key: figure.data for figure in figures},
            style=style,
            script=script,
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
        .encode()
    )


def _text(name: str) -> str:
    return resources.files("budc.cli.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression of a content security policy that allows exactly this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
