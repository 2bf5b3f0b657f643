"""The figures of one run as a table of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that `benchmarks/runtimes.py` prints for a result, which is what its `--json` writes."""
    height, width, frames = result["shape"]
    random = ", weights drawn at random" if result["random"] else ""
    yield f"{result['model']}{random}, {height} x {width} x {frames}, {result['threads']} threads"
    if exported := result["export"]:
        yield f"export: {exported['seconds']:.0f} s, peak memory {exported['peakBytes'] / 2**30:.1f} GiB"
    yield (
        f"{'runtime':<13}{'NFE':>4}  {'payload':<15}{'loop':>11}{'forward':>12}{'ratio':>7}"
        f"{'reused/full':>13}{'pipeline':>11}{'difference':>12}"
    )
    for row in result["rows"]:
        reuses = "reusedOverComputed" in row
        payload = row["payload"] if reuses else "–"
        reused = f"{row['reusedOverComputed']:.3f}" if reuses else "–"
        pipeline = f"{row['pipelineSeconds'] * 1e3:.0f} ms" if "pipelineSeconds" in row else "–"
        yield (
            f"{row['runtime']:<13}{row['nfe']:>4}  {payload:<15}{row['loopSeconds'] * 1e3:>8.0f} ms"
            f"{row['forwardSeconds'] * 1e3:>9.2f} ms{row['ratio']:>7.2f}{reused:>13}{pipeline:>11}"
            f"{row['maxRelativeDifference']:>12.1e}"
        )
    for runtime, seconds in result["importSeconds"].items():
        yield (
            f"{runtime}: import {seconds:.2f} s, peak memory {result['peakBytes'][runtime] / 2**20:.0f} MiB, "
            f"torch imported: {'yes' if result['torchImported'][runtime] else 'no'}"
        )
