"""The plot of docs/quality.md: error over NFE. A few lines are emphasised, the others grey, and each is labelled.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quality_methods.registry import METHODS
from quality_methods.summary import TRAINED
from quality_methods.tables import Row, by_method, is_ablation, merge

GREY = "0.62"
GAP = 0.024
"""Between two labels, as a share of an axis' height."""


class Style(NamedTuple):
    """How an emphasised line is drawn."""

    colour: str
    marker: str
    dashes: str = "-"


EMPHASISED: Mapping[str, Style] = {
    "joint-align": Style("#0072B2", "o"),
    "joint": Style("#D55E00", "s"),
    "best plain steps, trained": Style("#009E73", "^", "--"),
    "paper": Style("#000000", "D"),
    "teacache": Style("#E69F00", "v"),
}
"""Method -> style; one is the best of several."""


class Line(NamedTuple):
    """A method of one model: its name, and (NFE that was really spent, error) at each budget."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def label(self) -> str:
        """What is written at its end."""
        title = METHODS[self.name].title if self.name in METHODS else self.name
        return title.replace("*", "").removeprefix("budc, ").replace(", thorough", "")


def lines(rows: Sequence[Row]) -> list[Line]:
    """Return the lines of one model, and the lowest of the trained plain solvers as one more."""
    found, best = [], dict[int, tuple[float, float]]()
    for method, group in by_method(row for row in rows if not is_ablation(row)).items():
        points = []
        for nfe in sorted({row["budget"] for row in group}):
            merged = merge([row for row in group if row["budget"] == nfe])
            points.append((merged["nfe"], merged["geometricMean"]))
            if method in TRAINED:
                best[nfe] = min(best.get(nfe, points[-1]), points[-1], key=lambda point: point[1])
        found.append(Line(method, points))
    if best:
        found.append(Line("best plain steps, trained", [best[nfe] for nfe in sorted(best)]))
    return found


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Return places in 0..1, in the order given, moved as little as it takes to be `gap` apart where that fits."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved, low = list(places), 0.0
    for index in order:
        moved[index] = low = max(moved[index], low)
        low += gap
    high = 1.0
    for index in reversed(order):
        moved[index] = high = min(moved[index], high)
        high -= gap
    return moved


def plot(rows: list[Row], target: Path) -> None:
    """Draw the geometric mean error over the NFE that was really spent, one panel a model."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(6.6 * len(models), 8), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        axis.set(title=model, xlabel="NFE per guidance branch", yscale="log")
        axis.spines[["top", "right"]].set_visible(False)
        drawn = lines([row for row in rows if row["model"] == model])
        for line in drawn:
            _draw(axis, line)
        _label(axis, drawn)
    axes[0][0].set_ylabel("squared error of the final latents (geometric mean)")
    figure.set_layout_engine("constrained")
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _draw(axis: Any, line: Line) -> None:
    style = EMPHASISED.get(line.name)
    x, y = zip(*line.points, strict=True)
    if style is None:
        plain_steps = line.name in METHODS and METHODS[line.name].family == "steps"
        axis.plot(x, y, color=GREY, linewidth=0.9, linestyle="--" if plain_steps else "-", zorder=1)
    else:
        axis.plot(
            x, y, color=style.colour, linewidth=2.6, marker=style.marker, linestyle=style.dashes, zorder=3
        )


def _label(axis: Any, drawn: Sequence[Line]) -> None:
    """Write each line's label to the right of the panel, level with its end or as near to that as there is room."""
    axis.figure.canvas.draw()
    to_axes = axis.transAxes.inverted()
    ends = [to_axes.transform(axis.transData.transform(line.points[-1])) for line in drawn]
    for line, end, place in zip(drawn, ends, spread([end[1] for end in ends], GAP), strict=True):
        style = EMPHASISED.get(line.name)
        colour = "0.35" if style is None else style.colour
        axis.annotate(
            line.label,
            xy=end,
            xytext=(1.04, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize=7 if style is None else 9,
            fontweight="normal" if style is None else "bold",
            color=colour,
            verticalalignment="center",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.4,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 2,
            },
        )
