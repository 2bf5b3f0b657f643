"""docs/quality.md, its plot and the tables of docs/cost.md, from a results file alone: every figure was measured by the
command that they name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budc.compiler.comparison.learned_solver import EPOCHS
from budc.compiler.selection.effort import EFFORTS, epochs
from quality_methods import ceiling, cost_page, paired
from quality_methods.plot import plot
from quality_methods.summary import coefficients, summary
from quality_methods.tables import is_ablation, paper_forwards, table

INTRODUCTION = """# Quality at a fixed number of evaluations

<!-- Written by `python benchmarks/quality.py --report`; edit benchmarks/quality_methods/report.py instead. -->

Every method below except cache-dit runs the transformer equally often per guidance branch (NFE), on the same held-out
prompts and noise, and is compared with the full run of {steps} steps: in latents and in decoded frames. Methods fit and
search on calibration prompts alone. Those of others are reimplemented, some of them simplified (see the end), and not
tuned further to these models: their rows are not the best that their authors could reach.

- error: squared error of the final latents against the full run, per prompt. With a few prompts the result flips to a
  different picture, and their errors dominate the mean. So the table gives the geometric mean, the mean with its
  standard error, and the 95th percentile, and is sorted by the geometric mean.
- forwards: transformer forwards of one sample and one branch spent before deployment; a backward counts as two.
  The full run of the calibration prompts is included where a method uses it. The paper's search is counted as in its
  reference code, where every candidate is rolled out alone. In brackets: what it took here, where candidates that begin
  alike share that part of their rollouts. "÷ paper's" is the count over that of the paper's search on all {calibration}
  calibration prompts, those that the other methods have. Its authors' configurations use one prompt; that is a row of
  its own.
- Methods that draw at random are given as the mean over the seeds that were run ({seeds}): the paper's search, and
  `--align`, which shuffles its training samples. `joint` draws nothing; its variants are run with the first seed.
- "fewer steps" caches nothing. In "best timesteps" its timesteps are trained by budc's own trainer on the same
  calibration prompts, in "trained" its timesteps and coefficients.

```console
$ {command}
$ python benchmarks/quality.py --report RESULTS.json
```

{calibration} calibration and {held_out} held-out prompts, {device}, torch {torch}, diffusers {diffusers}. {cells}
(method, budget and seed), some of them in separate calls.

![Error over NFE for every method](images/quality.png)
"""

NOTES = """
## How the methods were run

Each is a module of `benchmarks/quality_methods/`; its first lines say what is computed and where it is simpler than
what its authors published.

- **`joint`** was given other starts and further moves while this was measured, and alignments another judge. All rows
  are of the search as it is now, but that of `--align` with `fast`.
- **TaylorSeer** forecasts the residual of the whole trunk, at the interval that spends exactly the budget.
- **TeaCache** decides per sample, from the modulated input. "Its Wan rule" looks at the timestep's embedding alone, so
  all samples decide alike. The threshold is bisected until the calibration prompts meet the budget; the NFE column
  gives what the held-out prompts then take.
- **MagCache**, in its published settings, protects its first steps and limits the number of steps reused in a row. With
  them it takes at least 18 of 50 evaluations, so both are switched off here.
- **MeanCache** runs on Euler, for which it is published. It was first tried on the model's own UniPC; Euler was chosen
  because its error on these held-out prompts was lower, a choice in its favour. Where it still is behind as few plain
  steps of Euler, the planner here is likely weaker than the published one.
- **cache-dit** runs a leading block at every step, also at cached ones. Its NFE is what really ran (block evaluations
  over blocks, with a mask of the budget's size), more than in the other rows. Its mask is uniform; presets and
  other leading blocks were not tried.
- **Trained few-step solvers** (timesteps alone, or with coefficients) get {epochs} epochs of the trainer on three
  quarters of the calibration prompts, each with three noises. `--align` gets {fewest} at the smallest budget and {most}
  at the largest. A cell in which some of these solvers were not run does not show how budc compares with the best of
  them.

Some cells are left out, of all tables or of most:

- **`--align` with the smaller efforts** was run in one cell, NFE 8 of `flux-nano`, and for
  [the paper's tables](paper.md). What an effort costs is in [cost.md](cost.md).
- **`--align`** was run with one seed, and its learning rates were chosen on six of these cells
  ([ADR 21](adr/0021-refinement.md)). **`--branches separate`** was not run on `wan2.1-mini`. What was "trained for
  long" started from an alignment of before coefficients were refined, and its coefficients moved each by itself.
- **The paper's second stage** was run at NFE 8 of `flux-nano` with three seeds, and for [the paper's tables](paper.md).
  The other 33 cells, a minute and a half and more each, were dropped: there it changes the error of the search by less
  than the search's seeds differ.
- **`--steps auto`** chooses between `joint --align` and plain steps of the model's own solver with trained timesteps,
  by prompts that neither was fitted on. It was run in the cells that "Prompt by prompt" shows.
- **The joint policy taken apart, and trained for long,** explains results and competes with none. It was run in the
  cells that show it, and runs in others where `--methods` names it.
- **DiCache** runs a block at every step, also where it reuses. Of four blocks that is a quarter of a forward, so that
  its 50 probes alone take 13 evaluations. **ERTACache** (arXiv 2508.21091) is missing: its
  authors' code could not be had.

## What limits --align

A policy that reuses velocities and a few steps of a trained solver are rules of the same kind: the final latents are a
sum of the noise and of the computed velocities, with constant factors. "Trained for long" continues from the result of
`--align`, with {noises} noises of each of {prompts} prompts and {long} epochs; {judging} more prompts choose the epoch.
What it gains is what more calibration prompts and longer training could gain. What remains is beyond one rule for all
prompts.
"""


def report(results: Mapping[str, Any]) -> str:
    """Return the text of docs/quality.md."""
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
        cells=_cells(len(rows), len(results["notRun"])),
    )
    text += summary([row for row in rows if not is_ablation(row)], results["calibration"])
    text += paired.section(rows)
    for model in dict.fromkeys(row["model"] for row in rows):
        for budget in sorted({row["budget"] for row in rows if row["model"] == model}):
            text += _cell(results, model, budget)
    return text + NOTES.format(
        epochs=EPOCHS,
        fewest=epochs(min(row["budget"] for row in rows), EFFORTS["thorough"]),
        most=epochs(max(row["budget"] for row in rows), EFFORTS["thorough"]),
        noises=ceiling.NOISES,
        prompts=ceiling.PROMPTS - ceiling.JUDGING,
        long=ceiling.EPOCHS,
        judging=ceiling.JUDGING,
    )


def _cells(run: int, missing: int) -> str:
    """Return in words how many cells were run."""
    return f"{run} of {run + missing} cells were run" if missing else f"{run} cells were run"


def _cell(results: Mapping[str, Any], model: str, budget: int) -> str:
    compared, ablated, missing = (
        [row for row in rows if (row["model"], row["budget"]) == (model, budget) and is_ablation(row) is kind]
        for rows, kind in ((results["rows"], False), (results["rows"], True), (results["notRun"], False))
    )
    paper = paper_forwards(compared)
    text = f"\n## {model}, NFE {budget}\n\n{table(compared, missing, paper)}"
    if ablated:
        text += f"\nThe joint policy taken apart, and trained for long:\n\n{table(ablated, [], paper)}"
    return text + coefficients(ablated)


def write_report(results: Mapping[str, Any], docs: Path) -> None:
    """Write quality.md, images/quality.png and the tables of cost.md, where there is one, into `docs`.

    Rows of later draws than the first are for the comparison of efforts alone.
    """
    (docs / "images").mkdir(parents=True, exist_ok=True)
    first = [row for row in results["rows"] if not row.get("draw")]
    plot(first, docs / "images" / "quality.png")
    (docs / "quality.md").write_text(report({**results, "rows": first}), encoding="utf-8")
    cost = docs / "cost.md"
    if cost.is_file():
        cost.write_text(
            cost_page.written_into(cost.read_text(encoding="utf-8"), results["rows"]), encoding="utf-8"
        )
