"""The tables of docs/quality.md: one row per method, its seeds merged."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from quality_methods.registry import METHODS

Row = Mapping[str, Any]


def is_ablation(row: Row) -> bool:
    """Return whether a row takes budc's own policy apart, rather than comparing methods."""
    return METHODS[row["method"]].family == "ablation"


def paper_forwards(rows: Iterable[Row]) -> float | None:
    """Return the forwards of the paper's search in a cell, rollouts not shared; None where it was not run."""
    paper = [row for row in rows if row["method"] == "paper"]
    return merge(paper)["unshared"] if paper else None


def table(rows: Iterable[Row], absent: Iterable[Row], paper: float | None) -> str:
    """Return the methods of one cell as a Markdown table, the best first and those that were not run last.

    `paper`: the forwards of the paper's search.
    """
    lines = [
        "| method | error (geo. mean) | mean ± s.e. | 95th pct | PSNR | SSIM | NFE | forwards | ÷ paper's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups, missing = by_method(rows), by_method(absent)
    merged = [merge(group) for group in groups.values()]
    for entry in sorted(merged, key=lambda entry: entry["geometricMean"]):
        spread = f" ({entry['nfeMin']:g}–{entry['nfeMax']:g})" if entry["nfeMax"] > entry["nfeMin"] else ""
        shared = f" ({entry['forwards']:,.0f})" if entry["forwards"] != entry["unshared"] else ""
        run, lacking = len(groups[entry["method"]]), len(missing.get(entry["method"], ()))
        seeds = f" ({run} of {run + lacking} seeds)" if lacking else ""
        cost = f"{entry['unshared'] / paper:.3f}" if paper and entry["unshared"] else ""
        lines.append(
            f"| {METHODS[entry['method']].title}{seeds} | {entry['geometricMean']:.2e} "
            f"| {entry['mean']:.2e} ± {entry['standardError']:.0e} | {entry['p95']:.2e} | {entry['psnr']:.1f} dB "
            f"| {entry['ssim']:.3f} | {entry['nfe']:.4g}{spread} | {entry['unshared']:,.0f}{shared} | {cost} |"
        )
    lines += [f"| {METHODS[name].title} | not run |" + " |" * 7 for name in missing if name not in groups]
    return "\n".join(lines) + "\n"


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows by method, in the order of the rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    return groups


def merge(rows: list[Row]) -> dict[str, Any]:
    """Return the mean of every figure over a method's seeds; the spread of NFE is that of all samples."""
    figures = {
        name: statistics.fmean(row["error"][name] for row in rows)
        for name in ("geometricMean", "mean", "standardError", "p95")
    }
    return {
        **figures,
        "method": rows[0]["method"],
        "psnr": statistics.fmean(row["psnr"]["mean"] for row in rows),
        "ssim": statistics.fmean(row["ssim"]["mean"] for row in rows),
        "nfe": statistics.fmean(row["nfe"]["mean"] for row in rows),
        "nfeMin": min(row["nfe"]["min"] for row in rows),
        "nfeMax": max(row["nfe"]["max"] for row in rows),
        "forwards": statistics.fmean(row["searchForwards"] for row in rows),
        "unshared": statistics.fmean(row["searchForwardsUnshared"] for row in rows),
    }
