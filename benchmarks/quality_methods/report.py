"""docs/quality.md and its plot, from a results file alone: every figure was measured by the command it names."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from budc.compiler.selection.alignment import epochs
from quality_methods import ceiling
from quality_methods.registry import METHODS
from quality_methods.trained_steps import EPOCHS

Row = Mapping[str, Any]

INTRODUCTION = """# Quality at a fixed number of evaluations

<!-- Written by `python benchmarks/quality.py --report`; edit benchmarks/quality_methods/report.py instead. -->

Every method below but cache-dit spends the same number of transformer evaluations per guidance branch (NFE) on the
same held-out prompts and noise, and is compared with the full run of {steps} in latents and in decoded frames. What a
method fits or searches by itself, it fits on calibration prompts alone. Methods of others are reimplemented, some
simplified (see the end), and none was tuned to these models beyond that: their rows are not the best that their
authors could do.

- error: squared error of the final latents against the full run, per prompt. Errors are heavy-tailed, a few prompts
  flip to another mode and own the mean, so the geometric mean, the mean with its standard error and the 95th
  percentile are given; rows are in the order of the geometric mean.
- forwards: transformer forwards of one sample and one branch spent before deployment, a backward counted as two; the
  full run of the calibration prompts is included where a method uses it. For the paper's search the count is what the
  same candidates take when each is rolled out alone, as in its reference code; sharing the rollouts of common
  beginnings, as it was run here, took the number in brackets. "÷ paper's" is the count over that of the paper's search.
- methods that draw at random are given as the mean over the seeds that were run ({seeds}): the paper's search, and
  `--align`, which shuffles what it trains on. `joint` draws nothing; its variants are run with the first seed.
- "fewer steps" caches nothing; "best timesteps" has its timesteps trained by budc's own trainer on the same calibration
  prompts, "trained" its timesteps and coefficients.

```console
$ {command}
$ python benchmarks/quality.py --report RESULTS.json
```

{calibration} calibration and {held_out} held-out prompts, {device}, torch {torch}, diffusers {diffusers}. {done} of
{planned} cells (method, budget and seed) were run, some in separate calls; the same command runs the others.

![Error over NFE for every method](images/quality.png)
"""

NOTES = """
## How the methods were run

Each is a module of `benchmarks/quality_methods/`; its first lines say what is computed and where it is simpler than
what its authors published.

- **TaylorSeer** forecasts the residual of the whole trunk, at the interval that spends exactly the budget.
- **TeaCache** decides per sample, from the modulated input; "its Wan rule" looks at the timestep's embedding alone, so
  that all samples decide alike. The threshold is bisected to the budget on the calibration prompts; what the held-out
  prompts then cost is in the NFE column.
- **MagCache** protects its first steps and caps runs of reused steps in its published settings, which then take 18 of
  50 evaluations at least; both are lifted here.
- **MeanCache** runs on Euler, for which it is published. It was first tried on the model's own UniPC, and Euler was
  taken because its error on these held-out prompts was lower, a choice in its favour. Where it still falls behind
  Euler with as few steps, the planner here is likely weaker than the published one.
- **cache-dit** runs a leading block at every step, cached ones included: its NFE is what really ran, block evaluations
  over blocks, at a mask of the budget's size, which is more than every other row's. Its mask is uniform; presets and
  other leading blocks were not tried.
- **Trained few-step solvers**, their timesteps alone or with coefficients, have {epochs} epochs of the trainer on three
  quarters of the calibration prompts, each with three noises; `--align` has {fewest} at the smallest budget and {most}
  at the largest. A cell in which some of them were not run does not show how budc compares with the best of them.

## What limits --align

A policy that reuses velocities and a few steps of a trained solver are the same kind of rule: final latents are a sum
of the noise and so many velocities, with constants. "Trained for long" goes on from what `--align` found, with
{noises} noises of each of {prompts} prompts and {long} epochs; {judging} more prompts choose one. What it gains
is what more calibration prompts and longer training could gain; what is left is what one rule for all prompts
cannot do.
"""


def write_report(results: Mapping[str, Any], docs: Path) -> None:
    """Write quality.md and images/quality.png into `docs`."""
    rows = results["rows"]
    text = INTRODUCTION.format(
        steps=results["steps"],
        seeds=", ".join(str(seed) for seed in sorted({row["seed"] for row in rows})),
        command=results["command"],
        calibration=results["calibration"],
        held_out=results["heldOut"],
        device=results["device"],
        torch=results["torch"],
        diffusers=results["diffusers"],
        done=len(rows),
        planned=len(rows) + len(results["notRun"]),
    )
    for model in dict.fromkeys(row["model"] for row in rows):
        for budget in sorted({row["budget"] for row in rows if row["model"] == model}):
            cell = [row for row in rows if (row["model"], row["budget"]) == (model, budget)]
            absent = [row for row in results["notRun"] if (row["model"], row["budget"]) == (model, budget)]
            chosen, ablated = ([row for row in cell if _ablates(row) is which] for which in (False, True))
            paper = paper_forwards(chosen)
            missing = [row for row in absent if not _ablates(row)]
            text += f"\n## {model}, NFE {budget}\n\n{table(chosen, missing, paper)}"
            if ablated:
                text += (
                    f"\nThe joint policy taken apart, and trained for long:\n\n{table(ablated, [], paper)}"
                )
    figures = {
        "epochs": EPOCHS,
        "fewest": epochs(min(row["budget"] for row in rows)),
        "most": epochs(max(row["budget"] for row in rows)),
        "noises": ceiling.NOISES,
        "prompts": ceiling.PROMPTS - ceiling.JUDGING,
        "long": ceiling.EPOCHS,
        "judging": ceiling.JUDGING,
    }
    (docs / "images").mkdir(parents=True, exist_ok=True)
    plot(rows, docs / "images" / "quality.png")
    (docs / "quality.md").write_text(text + NOTES.format(**figures), encoding="utf-8")


def _ablates(row: Row) -> bool:
    return METHODS[row["method"]].family == "ablation"


def paper_forwards(rows: Iterable[Row]) -> float | None:
    """Return what the paper's search takes in a cell, nothing shared; None where it was not run."""
    found = [row for row in rows if row["method"] == "paper"]
    return merge(found)["unshared"] if found else None


def table(rows: Iterable[Row], absent: Iterable[Row], paper: float | None) -> str:
    """Return one cell's methods as a Markdown table, the best first, those that were not run last.

    `paper` are the forwards of the paper's search.
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
    """Group rows by method, in the order that they come."""
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
        shown = (row for row in rows if row["model"] == model and not _ablates(row))
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
