"""The mask of a policy on its schedule: sigmas over steps, and a strip for each group of branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from budc.cli.output.tables import wrapped
from budc.cli.report.figures import Cell, Figure
from budc.cli.report.svg import GRID, INK, MUTED, PAPER, SERIES, page_svg
from budc.schema.predictor import Predictor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from budc.schema.policy import BranchPolicy, PolicyDocument

_WIDTH, _CURVE_HEIGHT, _STRIP_HEIGHT = 5.8, 1.5, 0.32
_MOST_STRIPS = 8
"""Groups of branches that are drawn; the table has all."""


def mask_figure(document: PolicyDocument, key: str) -> Figure:
    """Return the masks of a policy on its schedule."""
    import matplotlib.figure

    groups = document.policy.branches[:_MOST_STRIPS]
    height = _CURVE_HEIGHT + 0.6 + _STRIP_HEIGHT * len(groups)
    figure = matplotlib.figure.Figure(figsize=(_WIDTH, height))
    ratios = [_CURVE_HEIGHT, _STRIP_HEIGHT * len(groups)]
    curve, strips = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    figure.subplots_adjust(left=0.13, right=0.985, bottom=0.5 / height, top=1 - 0.1 / height, hspace=0.12)
    _draw_schedule(curve, document)
    for row, branch in enumerate(groups):
        _draw_strip(strips, branch, row)
    _finish_strips(strips, document, groups)
    title = f"{document.policy.payload}: computed steps on the schedule"
    columns = ["branches", "step", "sigma", "timestep", "computed", "coefficients, newest first"]
    return Figure(key, title, "filled: computed", page_svg(figure, key, title), columns, _rows(document))


def computed_steps(branch: BranchPolicy) -> str:
    """Return the numbers of the computed steps."""
    return wrapped(str(step) for step in branch.step_mask().compute_steps).replace("\n", " ")


def is_plain(branch: BranchPolicy) -> bool:
    """Return whether every reused step takes the newest cached tensor unchanged."""
    return branch.step_predictor() == Predictor.plain_reuse(branch.step_mask())


def _draw_schedule(axes: Axes, document: PolicyDocument) -> None:
    sigmas = document.sampler.sigmas
    axes.plot(range(len(sigmas)), sigmas, color=MUTED, linewidth=1.2)
    branch = document.policy.branches[0]
    steps = branch.step_mask().compute_steps
    axes.plot(
        steps, [sigmas[step] for step in steps], color=SERIES[0], marker="o", linestyle="none", markersize=5
    )
    for expert in document.sampler.experts:
        axes.axvline(expert.first_step - 0.5, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
    axes.set_ylabel("sigma")
    axes.grid(True, axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(bottom=False)


def _draw_strip(axes: Axes, branch: BranchPolicy, row: int) -> None:
    mask = branch.mask
    gap = 0.12 if len(mask) <= 100 else 0
    for compute, colour in ((False, GRID), (True, SERIES[0])):
        spans = [(step - 0.5, 1 - gap) for step, value in enumerate(mask) if value is compute]
        axes.broken_barh(spans, (row - 0.4, 0.8), facecolor=colour, edgecolor=PAPER, linewidth=0)


def _finish_strips(axes: Axes, document: PolicyDocument, groups: Sequence[BranchPolicy]) -> None:
    steps = document.sampler.steps
    names = [", ".join(branch.names)[:16] for branch in groups]
    axes.set_yticks(range(len(groups)), names if len(groups) > 1 else ["mask"])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlim(-0.7, steps - 0.3)
    axes.tick_params(left=False, labelcolor=INK)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlabel("step")


def _rows(document: PolicyDocument) -> list[list[Cell]]:
    sampler = document.sampler
    return [
        [
            ", ".join(branch.names),
            step,
            sampler.sigmas[step],
            sampler.timesteps[step],
            "yes" if compute else "no",
            " ".join(f"{value:+.6g}" for value in row),
        ]
        for branch in document.policy.branches
        for step, (compute, row) in enumerate(zip(branch.mask, branch.predictor, strict=True))
    ]
