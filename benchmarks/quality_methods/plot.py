"""The plot of docs/quality.md: error over NFE."""

from __future__ import annotations

from pathlib import Path

from quality_methods.registry import METHODS
from quality_methods.tables import Row, by_method, is_ablation, merge


def plot(rows: list[Row], target: Path) -> None:
    """Draw the geometric mean error over the NFE that was really spent, one panel a model."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in rows))
    figure, axes = plt.subplots(1, len(models), figsize=(max(11, 6 * len(models)), 7), squeeze=False)
    colours = plt.get_cmap("tab20").colors
    order = list(METHODS)
    for axis, model in zip(axes[0], models, strict=True):
        shown = (row for row in rows if row["model"] == model and not is_ablation(row))
        for method, group in by_method(shown).items():
            points = [
                merge([row for row in group if row["budget"] == nfe])
                for nfe in sorted({row["budget"] for row in group})
            ]
            style = METHODS[method]
            axis.plot(
                [point["nfe"] for point in points],
                [point["geometricMean"] for point in points],
                label=style.title.replace("*", ""),
                color=colours[order.index(method) % len(colours)],
                linestyle="--" if style.family == "steps" else "-",
                linewidth=3 if style.family == "budc" else 1.2,
                marker="o" if style.family == "budc" else ".",
            )
        axis.set(title=model, xlabel="NFE per guidance branch", yscale="log")
    axes[0][0].set_ylabel("squared error of the final latents (geometric mean)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    figure.set_layout_engine("constrained")
    figure.savefig(target, dpi=110)
    plt.close(figure)
