"""Methods against each other at the same NFE: error, PSNR and SSIM on held-out prompts, and what the search cost.

    python benchmarks/quality.py --models wan2.1-nano,wan2.1-mini --budgets 6,8,10,14 --json results.json
    python benchmarks/quality.py --report results.json
    python benchmarks/quality.py --draws 1,2 --methods joint-fast,joint-balanced,joint --json draws.json

The first command measures. Every cell is on disk as soon as it is measured, so a killed run goes on where it
stopped; `--methods` selects methods, and `--again` measures their cells again. The second command writes
docs/quality.md, its plot and the measured tables of docs/cost.md from the results. The third measures on further
prompts of the same files, for a figure that depends on which prompts were taken (`quality_methods/draws.py`).
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import diffusers
import torch
from command_line import (
    COUNT,
    MODELS,
    NUMBERS,
    PATH,
    RESULTS,
    Names,
    Numbers,
    check_budgets,
    script,
)
from quality_methods.registry import METHODS, applicable
from quality_methods.report import write_report
from quality_methods.scoring import Scorer
from quality_methods.setting import Setting, folder_of

from budc.cli.dependencies import quiet_libraries
from budc.compiler.cluster import parse_cluster
from budc.compiler.workers.model_workers import model_pool
from budc.policies.model_choice import choose_model
from budc.runtimes.sampling.devices import device_name, find_device
from budc.schema.files import write_atomic

ROOT = Path(__file__).parents[1]


def cells(
    methods: Sequence[str], budgets: Sequence[int], seeds: Sequence[int]
) -> Iterator[tuple[str, int, int]]:
    """Yield (method, NFE, seed); a method that no seed changes is measured once."""
    for method in methods:
        for nfe in budgets:
            for seed in seeds if METHODS[method].seeded else [0]:
                yield method, nfe, seed


def named(model: str, method: str, nfe: int, seed: int, draw: int) -> dict[str, Any]:
    """Return what names a cell in the results; the first draw goes without saying."""
    cell = {"model": model, "budget": nfe, "method": method, "seed": seed}
    return {**cell, "draw": draw} if draw else cell


def finished_rows(
    folder: Path, model: str, plan: Sequence[tuple[str, int, int]], draw: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the cells that were measured, from disk, and the names of the others."""
    rows, missing = [], []
    for method, nfe, seed in plan:
        path = folder / f"{method}-{nfe}-{seed}.json"
        if path.is_file():
            rows.append(json.loads(path.read_text(encoding="utf-8")))
        else:
            missing.append(named(model, method, nfe, seed, draw))
    return rows, missing


def measure(
    setting: Setting, scorer: Scorer, method: str, nfe: int, seed: int, again: bool
) -> dict[str, Any]:
    """Return the row of one cell, from disk if it was measured before."""
    sizes = f"{len(setting.calibration)}-{len(setting.held_out)}"
    target = setting.folder / f"rows-{sizes}" / f"{method}-{nfe}-{seed}.json"
    if target.is_file() and not again:
        row: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return row
    started, work = time.monotonic(), setting.folder / f"searches-{sizes}" / f"{method}-{nfe}-{seed}"
    if again:
        shutil.rmtree(work, ignore_errors=True)
    outcome = METHODS[method].run(setting, nfe, seed, work)
    row = {**named(setting.name, method, nfe, seed, setting.draw), **scorer.score(outcome)}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, json.dumps(row, indent=1).encode())
    error = row["error"]["geometricMean"]
    print(
        f"{setting.name} NFE {nfe} {method} seed {seed} draw {setting.draw}: error {error:.3g}, "
        f"mean NFE {row['nfe']['mean']:.2f}, {time.monotonic() - started:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return row


def header(
    model: str, calibration: int | None, held_out: int | None, device: str | None = None
) -> dict[str, Any]:
    """Return what the figures depend on besides the code; numbers of prompts that are None are the profile's."""
    profile, place = choose_model(model), find_device(device)
    count = torch.get_num_threads()
    threads = f"CPU, {count} thread{'s' if count != 1 else ''}"
    return {
        "command": shlex.join(["python", *(part for part in sys.argv if part != "--finished")]),
        "device": threads if place.type == "cpu" else device_name(place),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "calibration": calibration or profile.prompts.calibration_size,
        "heldOut": held_out or profile.prompts.held_out_size,
        "steps": profile.steps,
        "titles": {name: method.title for name, method in METHODS.items()},
    }


def written(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the results as JSON, one row per line."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    return json.dumps(head, indent=1).removesuffix("\n}") + f',\n "rows": [\n{lines}\n ]\n}}\n'


@script(__doc__)
@click.option("--models", type=MODELS, default="wan2.1-nano,wan2.1-mini", show_default=True)
@click.option("--budgets", type=NUMBERS, default="6,8,10,14", show_default=True)
@click.option(
    "--methods",
    type=Names(METHODS),
    default=",".join(name for name, method in METHODS.items() if not method.by_name),
    help="comma-separated; default all but those that the registry has as measured by name",
)
@click.option("--seeds", type=Numbers(0), default="0,1,2", show_default=True, help="for methods that draw")
@click.option("--draws", type=Numbers(0), default="0", show_default=True, help="of prompts, 0 the first ones")
@click.option("--calibration", type=COUNT, help="calibration prompts; default the profile's number")
@click.option("--held-out", type=COUNT, help="held-out prompts; default the profile's number")
@click.option("--weights", type=PATH, help="folder of the model; for one model")
@click.option("--device", help="as that of budc; default the accelerator, or the CPU")
@click.option("--work", type=PATH, default=ROOT / "out" / "quality", show_default=True)
@click.option(
    "--ray", metavar="ADDRESS", help="let workers of a Ray cluster make the full runs, as that of budc"
)
@click.option("--workers", type=COUNT, help="how many; default as many as the cluster has room for")
@click.option("--again", is_flag=True, help="measure cells again that are in --work")
@click.option("--finished", is_flag=True, help="measure nothing: take the cells that are in --work")
@click.option("--json", "target", type=PATH, help="where the rows go")
@click.option("--report", type=RESULTS, help="write docs/quality.md from results")
@click.option("--docs", type=PATH, default=ROOT / "docs", show_default=True)
def main(
    models: tuple[str, ...],
    budgets: tuple[int, ...],
    methods: tuple[str, ...],
    seeds: tuple[int, ...],
    draws: tuple[int, ...],
    calibration: int | None,
    held_out: int | None,
    weights: Path | None,
    device: str | None,
    work: Path,
    ray: str | None,
    workers: int | None,
    again: bool,
    finished: bool,
    target: Path | None,
    report: dict[str, Any] | None,
    docs: Path,
) -> None:
    """Measure, or write the report."""
    quiet_libraries()
    if report is not None:
        write_report(report, docs)
        return
    if weights is not None and len(models) > 1:
        raise click.UsageError("--weights is the folder of one model; give --models one name")
    check_budgets(models, budgets)
    rows: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    for model in models:
        profile = choose_model(model)
        fitting, others = applicable(methods, profile.pipeline_class)
        for method in others:
            where = ", ".join(METHODS[method].pipelines)
            print(f"{model}: {method} is skipped, it is written for {where}", file=sys.stderr)
        plan = list(cells(fitting, budgets, seeds))
        head = header(model, calibration, held_out, device)
        for draw in draws:
            folder = folder_of(work, model, weights, device)
            folder = folder / f"draw-{draw}" if draw else folder
            if finished:
                sizes = f"rows-{head['calibration']}-{head['heldOut']}"
                found, absent = finished_rows(folder / sizes, profile.name, plan, draw)
                rows, missing = rows + found, missing + absent
                continue
            folder.mkdir(parents=True, exist_ok=True)
            with model_pool(parse_cluster(ray, workers, None), find_device(device), folder) as pool:
                setting = Setting(
                    model, folder, calibration, held_out, weights=weights, device=device, pool=pool, draw=draw
                )
                scorer = Scorer(setting)
                rows += [measure(setting, scorer, *cell, again) for cell in plan]
    head = header(models[0], calibration, held_out, device)
    text = written({**head, "notRun": missing}, rows)
    if target is None:
        print(text, end="")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
