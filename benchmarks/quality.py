"""Methods against each other at the same NFE: error, PSNR and SSIM on held-out prompts, and what the search cost.

    python benchmarks/quality.py --models wan2.1-nano,wan2.1-mini --budgets 6,8,10,14 --json results.json
    python benchmarks/quality.py --report results.json

The first command measures. Every cell is on disk as soon as it is measured, so a killed run goes on where it
stopped; `--methods` selects methods, and `--again` measures their cells again. The second command writes
docs/quality.md, its plot and the measured tables of docs/cost.md from the results.
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import diffusers
import torch
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


def names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """Read a comma-separated list of methods; without one, all but those that are measured by name alone."""
    if value is None:
        return [name for name, method in METHODS.items() if not method.by_name]
    chosen = value.split(",")
    for name in chosen:
        if name not in METHODS:
            raise click.BadParameter(f"no method named {name!r}; there are {', '.join(METHODS)}")
    return chosen


def cells(methods: list[str], budgets: list[int], seeds: list[int]) -> Iterator[tuple[str, int, int]]:
    """Yield (method, NFE, seed); a method that no seed changes is measured once."""
    for method in methods:
        for nfe in budgets:
            for seed in seeds if METHODS[method].seeded else [0]:
                yield method, nfe, seed


def measure(
    setting: Setting, scorer: Scorer, method: str, nfe: int, seed: int, again: bool
) -> dict[str, Any]:
    """Return the row of one cell, from disk if it was measured before."""
    sizes = f"{len(setting.calibration)}-{len(setting.held_out)}"
    target = setting.folder / f"rows-{sizes}" / f"{method}-{nfe}-{seed}.json"
    if target.is_file() and not again:
        row: dict[str, Any] = json.loads(target.read_text(encoding="utf-8"))
        return row
    started, work = time.monotonic(), setting.folder / f"{method}-{nfe}-{seed}"
    if again:
        shutil.rmtree(work, ignore_errors=True)
    outcome = METHODS[method].run(setting, nfe, seed, work)
    row = {"model": setting.name, "budget": nfe, "method": method, "seed": seed, **scorer.score(outcome)}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, json.dumps(row, indent=1).encode())
    error = row["error"]["geometricMean"]
    print(
        f"{setting.name} NFE {nfe} {method} seed {seed}: error {error:.3g}, mean NFE {row['nfe']['mean']:.2f}, "
        f"{time.monotonic() - started:.0f} s",
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


@click.command(help=__doc__)
@click.option("--models", default="wan2.1-nano,wan2.1-mini", show_default=True)
@click.option("--budgets", default="6,8,10,14", show_default=True)
@click.option(
    "--methods",
    callback=names,
    help="comma-separated; default all but those that the registry has as measured by name",
)
@click.option("--seeds", default="0,1,2", show_default=True, help="for methods that draw")
@click.option(
    "--calibration", type=click.IntRange(1), help="calibration prompts; default the profile's number"
)
@click.option("--held-out", type=click.IntRange(1), help="held-out prompts; default the profile's number")
@click.option("--weights", type=click.Path(path_type=Path), help="folder of the model; for one model")
@click.option("--device", help="as that of budc; default the accelerator, or the CPU")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "out" / "quality", show_default=True)
@click.option(
    "--ray", metavar="ADDRESS", help="let workers of a Ray cluster make the full runs, as that of budc"
)
@click.option(
    "--workers", type=click.IntRange(1), help="how many; default as many as the cluster has room for"
)
@click.option("--again", is_flag=True, help="measure cells again that are in --work")
@click.option("--finished", is_flag=True, help="measure nothing: take the cells that are in --work")
@click.option("--json", "target", type=click.Path(path_type=Path), help="where the rows go")
@click.option(
    "--report", type=click.Path(path_type=Path, exists=True), help="write docs/quality.md from results"
)
@click.option("--docs", type=click.Path(path_type=Path), default=ROOT / "docs", show_default=True)
def main(
    models: str,
    budgets: str,
    methods: list[str],
    seeds: str,
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
    report: Path | None,
    docs: Path,
) -> None:
    """Measure, or write the report."""
    quiet_libraries()
    if report is not None:
        write_report(json.loads(report.read_text(encoding="utf-8")), docs)
        return
    if weights is not None and "," in models:
        raise click.UsageError("--weights is the folder of one model; give --models one name")
    rows, missing = [], []
    sizes, draws = ([int(value) for value in text.split(",")] for text in (budgets, seeds))
    for model in models.split(","):
        profile = choose_model(model)
        fitting, others = applicable(methods, profile.pipeline_class)
        for method in others:
            where = ", ".join(METHODS[method].pipelines)
            print(f"{model}: {method} is skipped, it is written for {where}", file=sys.stderr)
        plan = list(cells(fitting, sizes, draws))
        folder = folder_of(work, model, weights, device)
        head = header(model, calibration, held_out, device)
        if finished:
            folder /= f"rows-{head['calibration']}-{head['heldOut']}"
            for method, nfe, seed in plan:
                path = folder / f"{method}-{nfe}-{seed}.json"
                if path.is_file():
                    rows.append(json.loads(path.read_text(encoding="utf-8")))
                else:
                    missing.append({"model": profile.name, "budget": nfe, "method": method, "seed": seed})
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with model_pool(parse_cluster(ray, workers, None), find_device(device), folder) as pool:
            setting = Setting(model, folder, calibration, held_out, weights=weights, device=device, pool=pool)
            scorer = Scorer(setting)
            rows += [measure(setting, scorer, *cell, again) for cell in plan]
    head = header(models.split(",")[0], calibration, held_out, device)
    text = written({**head, "notRun": missing}, rows)
    if target is None:
        print(text, end="")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
