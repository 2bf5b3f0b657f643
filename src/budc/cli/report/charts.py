"""Charts of a comparison: each metric over evaluations and over measured time, and the tails of its prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from budc.cli.output.metric_labels import MetricLabel, metric_label, shown_value
from budc.cli.report.comparisons import Comparison, Row
from budc.cli.report.figures import Cell, Figure, LegendEntry
from budc.cli.report.svg import MUTED, SERIES, page_svg
from budc.schema.report_names import FEWER_STEPS, FULL, POLICY, UNIFORM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from budc.schema.policy import Metric

SIZE = (5.0, 3.3)
"""Inches of 72 units: small, so that letters can be read on a phone, where the chart is not enlarged."""
PLACE = (0.16, 0.17, 0.82, 0.79)
"""Of the axes in the figure. Fixed: to measure every label would take as long as drawing."""
MARKERS = "os^DvP*Xhp"
LOOK = "●■▲◆▼✚★✖⬢⬟"
"""The characters that look like the markers, in the same order."""
TAIL_POINTS = 256
"""How many values of a tail are kept; of more prompts they are quantiles."""
_TICK_GAP = 1.15
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Series(NamedTuple):
    """Rows of one method, in the order of their evaluations."""

    title: str
    is_policy: bool
    rows: list[Row]


def series_of(comparison: Comparison) -> list[Series]:
    """Return the series of a comparison, policies first; the full run is none of them.

    Policies that differ in their evaluations are one series; where two have as many, each is one of its own.
    """
    policies = comparison.policies
    if len({row.nfe for row in policies}) == len(policies) > 1:
        series = [Series("policies", True, policies)]
    else:
        series = [Series(row.title, True, [row]) for row in policies]
    kinds = dict.fromkeys(row.kind for row in comparison.rows if row.kind not in (POLICY, FULL))
    # These two first, so that they have the same colours in every comparison.
    for kind in sorted(kinds, key=lambda kind: (kind != FEWER_STEPS, kind != UNIFORM)):
        rows = [row for row in comparison.rows if row.kind == kind]
        series.append(Series(rows[0].title, False, rows))
    return [item._replace(rows=sorted(item.rows, key=lambda row: row.nfe)) for item in series]


def quality_figures(comparison: Comparison, key: str) -> list[Figure]:
    """Return each metric over evaluations and, where the loops were timed, over seconds."""
    figures = []
    for name in comparison.metrics:
        figures.append(_over(comparison, name, f"{key}-{name}-evaluations", EVALUATIONS))
        if comparison.timed:
            figures.append(_over(comparison, name, f"{key}-{name}-seconds", SECONDS))
    return figures


def tail_figures(comparison: Comparison, key: str) -> list[Figure]:
    """Return for each metric its values prompt by prompt, sorted, where they are there."""
    names = [name for name in comparison.metrics if any(name in row.samples for row in comparison.policies)]
    return [_tail(comparison, name, f"{key}-{name}-tail") for name in names]


class Axis(NamedTuple):
    """What a metric is drawn over."""

    title: str
    column: str
    value: Callable[[Row], float | None]


EVALUATIONS = Axis("evaluations", "evaluations", lambda row: row.nfe)
SECONDS = Axis("time", "seconds", lambda row: row.latency.median if row.latency else None)


def _over(comparison: Comparison, name: str, key: str, axis: Axis) -> Figure:
    import matplotlib.figure

    label = _label(comparison, name)
    figure = matplotlib.figure.Figure(figsize=SIZE)
    axes = figure.add_axes(PLACE)
    legend, rows = [], []
    for index, series in enumerate(series_of(comparison)):
        points = [(axis.value(row), row.metrics[name]) for row in series.rows if name in row.metrics]
        shown = [(x, metric) for x, metric in points if x is not None]
        if shown:
            legend.append(LegendEntry(index % len(SERIES), series.title, LOOK[index % len(LOOK)]))
            _draw_series(axes, shown, label, index, emphasised=series.is_policy)
    for row in comparison.rows:
        if (metric := row.metrics.get(name)) is not None and (x := axis.value(row)) is not None:
            rows.append([row.title, x, *_numbers(metric)])
    full = next((row for row in comparison.rows if row.kind == FULL), None)
    if full is not None and (x := axis.value(full)) is not None:
        axes.axvline(x, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        axes.annotate(
            "full run", (x, 1), xycoords=("data", "axes fraction"), xytext=(-4, -4), textcoords="offset points",
            rotation=90, ha="right", va="top", color=MUTED, fontsize=10,
        )  # fmt: skip
    _finish(axes, comparison, label, axis)
    title = f"{label.title} over {axis.title}"
    columns = ["method", axis.column, "mean", "standard error", "worst", "geometric mean", "samples"]
    note = f"{label.note}; hollow: the worst prompt" if label.note else "hollow: the worst prompt"
    return Figure(key, title, note, page_svg(figure, key, title), columns, rows, legend)


def _draw_series(
    axes: Axes, points: Sequence[tuple[float, Metric]], label: MetricLabel, index: int, *, emphasised: bool
) -> None:
    colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
    drawn = [(x, shown_value(metric), metric) for x, metric in points]
    if label.logarithmic:
        drawn = [point for point in drawn if point[1] > 0]
    axes.plot(
        [x for x, _, _ in drawn],
        [y for _, y, _ in drawn],
        color=colour,
        marker=marker,
        markersize=7 if emphasised else 5,
        linewidth=2.2 if emphasised else 1.2,
        zorder=3 if emphasised else 2,
    )
    for x, y, metric in drawn:
        if not label.logarithmic:
            low, high = y - metric.standard_error, y + metric.standard_error
            axes.plot([x, x], [low, high], color=colour, linewidth=1.2, marker="_", markersize=5)
        if emphasised and metric.worst != y and (metric.worst > 0 or not label.logarithmic):
            axes.plot([x, x], [y, metric.worst], color=colour, linewidth=0.8, linestyle=":")
            axes.plot([x], [metric.worst], color=colour, marker=marker, markerfacecolor="none", markersize=6)


def _finish(axes: Axes, comparison: Comparison, label: MetricLabel, axis: Axis) -> None:
    """Put scales, ticks and names on the axes."""
    _scale_values(axes, label)
    if axis is EVALUATIONS:
        ticks = spread_ticks(row.nfe for row in comparison.rows)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(ticks[0] / 1.15, ticks[-1] * 1.15)
        axes.set_xlabel("evaluations a branch")
    else:
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds of one denoising loop")


def _scale_values(axes: Axes, label: MetricLabel) -> None:
    import matplotlib.ticker

    axes.grid(True, axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    if label.logarithmic and axes.dataLim.height > 0:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        narrow = high < 100 * low  # too few powers of ten to read a value from
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        axes.yaxis.set_major_formatter(
            matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:.4g}" if narrow else power(value))
        )
        axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    # The unit is a file's own text: it is not to be read as a formula.
    unit = f", {label.unit}" if label.unit else ""
    mean = ", geometric mean" if label.logarithmic else ""
    axes.set_ylabel(f"{label.title}{unit}{mean}"[:40], parse_math=False)


def _tail(comparison: Comparison, name: str, key: str) -> Figure:
    import matplotlib.figure

    label = _label(comparison, name)
    figure = matplotlib.figure.Figure(figsize=SIZE)
    axes = figure.add_axes(PLACE)
    legend: list[LegendEntry] = []
    rows: list[list[Cell]] = []
    drawn: list[float] = []
    for index, row in enumerate(row for row in comparison.rows if row.kind != FULL and name in row.samples):
        values = quantiles(sorted(row.samples[name], reverse=label.higher_is_better is True))
        shares = [100 * (position + 0.5) / len(values) for position in range(len(values))]
        title = row.title if row.kind == POLICY else f"{row.title}, {row.nfe:.4g}"
        legend.append(LegendEntry(index % len(SERIES), title, LOOK[index % len(LOOK)]))
        rows += [[title, share, value] for share, value in zip(shares, values, strict=True)]
        drawn += values
        axes.plot(
            shares,
            values,
            color=SERIES[index % len(SERIES)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=4 if len(values) <= 32 else 0,
            linewidth=2.2 if row.kind == POLICY else 1.2,
        )
    _scale_values(axes, label._replace(logarithmic=label.logarithmic and min(drawn) > 0))
    axes.set_ylabel(label.title[:40], parse_math=False)
    axes.set_xlabel("share of prompts, % (the worst on the right)")
    axes.set_xlim(0, 100)
    title = f"{label.title}, prompt by prompt"
    columns = ["method", "share of prompts, %", label.title]
    return Figure(key, title, label.note, page_svg(figure, key, title), columns, rows, legend)


def quantiles(values: Sequence[float], count: int = TAIL_POINTS) -> list[float]:
    """Return sorted values, thinned out evenly to `count`; the first and the last stay."""
    if len(values) <= count:
        return list(values)
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]


def spread_ticks(values: Iterable[float]) -> list[float]:
    """Return the values that a logarithmic axis has room for, in order; the first and the last stay."""
    first, *others = sorted(set(values))
    ticks = [first]
    for tick in others:
        if tick / ticks[-1] >= _TICK_GAP:
            ticks.append(tick)
    if others and ticks[-1] != others[-1]:
        ticks[-1 if len(ticks) > 1 else len(ticks) :] = [others[-1]]
    assert all(a < b for a, b in pairwise(ticks))
    return ticks


def power(value: float) -> str:
    """Return a tick of a logarithmic axis: "10⁻³"."""
    from math import isclose, log10

    exponent = round(log10(value)) if value > 0 else 0
    if value <= 0 or not isclose(value, 10.0**exponent, rel_tol=1e-6):
        return ""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def _label(comparison: Comparison, name: str) -> MetricLabel:
    unit = next((row.metrics[name].unit for row in comparison.rows if name in row.metrics), None)
    return metric_label(name, unit)


def _numbers(metric: Metric) -> list[float | int | None]:
    return [metric.mean, metric.standard_error, metric.worst, metric.geometric_mean, metric.samples]
