"""The beginning of docs/quality.md: the best of each kind of method, and what follows from the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quality_methods.registry import METHODS
from quality_methods.tables import Row, by_method, merge

Cell = tuple[str, int]
"""(model, NFE)."""

TRAINED = tuple(name for name in METHODS if name.startswith("steps-") and name.endswith("-trained"))
OWN_SOLVER = {"wan2.1-nano": "steps-unipc", "wan2.1-mini": "steps-unipc", "flux-nano": "steps-euler"}
KINDS: dict[str, tuple[str, ...]] = {
    "**budc**, `joint --align`": ("joint-align",),
    "**budc**, `joint` (the default)": ("joint",),
    "**budc**, `joint --effort balanced`": ("joint-balanced",),
    "**budc**, `joint --effort fast`": ("joint-fast",),
    "best of the plain solvers, timesteps and coefficients trained": TRAINED,
    "the paper's search, on all prompts": ("paper",),
    "the paper's search, on one prompt": ("paper-one",),
    "TaylorSeer, order 1": ("taylorseer-1",),
    "TeaCache": ("teacache", "teacache-embedding"),
    "the model's own solver, as many steps": (),
    "uniform mask": ("uniform",),
}


def cells(rows: Sequence[Row]) -> dict[Cell, dict[str, dict[str, float]]]:
    """Return model and NFE -> method -> its figures, seeds merged."""
    grouped: dict[Cell, list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["model"], row["budget"]), []).append(row)
    return {
        cell: {method: merge(group) for method, group in by_method(members).items()}
        for cell, members in grouped.items()
    }


def summary(rows: Sequence[Row], calibration: int) -> str:
    """Return the section as Markdown; `calibration`: the prompts that all methods but one are searched on."""
    figures = cells(rows)
    text = "\n## In short\n\nError (geometric mean) of the best of each kind; lower is better.\n"
    for model in dict.fromkeys(model for model, _ in figures):
        text += "\n" + _table(model, {nfe: figures[name, nfe] for name, nfe in figures if name == model})
    return text + "".join(f"\n{line}\n" for line in (_rivals(figures), *costs(figures, calibration)) if line)


def _table(model: str, by_nfe: Mapping[int, Mapping[str, Mapping[str, float]]]) -> str:
    budgets = sorted(by_nfe)
    lines = [
        f"| `{model}` | {' | '.join(f'NFE {nfe}' for nfe in budgets)} |",
        "|---|" + "---|" * len(budgets),
    ]
    for kind, methods in KINDS.items():
        names = methods or (OWN_SOLVER.get(model, ""),)
        errors = [
            min((by_nfe[nfe][name]["geometricMean"] for name in names if name in by_nfe[nfe]), default=None)
            for nfe in budgets
        ]
        if any(error is not None for error in errors):
            shown = ["not run" if error is None else f"{error:#.2g}" for error in errors]
            lines.append(f"| {kind} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _rivals(figures: Mapping[Cell, Mapping[str, Mapping[str, float]]]) -> str:
    complete = [cell for cell in figures.values() if {"joint", "joint-align", *TRAINED} <= cell.keys()]
    if not complete:
        return ""
    ahead = {
        method: sum(
            min(cell[name]["geometricMean"] for name in TRAINED) < cell[method]["geometricMean"]
            for cell in complete
        )
        for method in ("joint", "joint-align")
    }
    return (
        "A few steps of a trained solver are the hardest to beat: the best of the four is ahead of `joint` in "
        f"{ahead['joint']} of {len(complete)} cells, and of `joint --align` in {ahead['joint-align']}."
    )


def costs(figures: Mapping[Cell, Mapping[str, Mapping[str, float]]], calibration: int) -> list[str]:
    """Return, in sentences, what `joint` costs beside the search of the paper, on all prompts and on one."""
    return [
        line
        for line in (
            _cost(figures, "paper", f"the paper's search on the same {calibration} prompts"),
            _cost(figures, "paper-one", "the paper's search on one prompt, as its authors ran it"),
        )
        if line
    ]


def _cost(figures: Mapping[Cell, Mapping[str, Mapping[str, float]]], paper: str, title: str) -> str:
    complete = [cell for cell in figures.values() if {"joint", "joint-align", paper} <= cell.keys()]
    if not complete:
        return ""

    def span(method: str, figure: str, of_paper: str) -> str:
        ratios = [cell[method][figure] / cell[paper][of_paper] for cell in complete]
        least, most = (f"{ratio:.2g}" for ratio in (min(ratios), max(ratios)))
        return least if least == most else f"{least} to {most}"

    spent = {method: span(method, "forwards", "unshared") for method in ("joint", "joint-align")}
    error = {method: span(method, "geometricMean", "geometricMean") for method in ("joint", "joint-align")}
    return (
        f"Against {title} ({_cells(len(complete))}), `joint` spends {spent['joint']} times the forwards before "
        f"deployment and ends at {error['joint']} of the error, `joint --align` {spent['joint-align']} times at "
        f"{error['joint-align']}."
    )


def _cells(count: int) -> str:
    return f"{count} cell{'s' if count != 1 else ''}"


def coefficients(rows: Sequence[Row]) -> str:
    """Return, as a sentence, the errors of the rules for coefficients; empty where one was not run."""
    errors = {method: merge(group)["geometricMean"] for method, group in by_method(rows).items()}
    names = [f"joint-mask-{rule}-velocity" for rule in ("plain", "gram", "tracked")]
    if not set(names) <= errors.keys():
        return ""
    plain, gram, tracked = (f"{errors[name]:.2g}" for name in names)
    return (
        f"\nOn joint's mask, velocities that are reused as they are end at {plain}, with coefficients from the full "
        f"run at {gram}, and with coefficients fitted along the policy's own path at {tracked}.\n"
    )
