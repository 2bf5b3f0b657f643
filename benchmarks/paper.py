"""The tables and figures of arXiv 2606.13496, on embedded models or on weights of your own.

    python benchmarks/paper.py --table main
    python benchmarks/paper.py --table main --model flux.1-dev --weights DIR --budgets 6,8,10
    python benchmarks/paper.py --report

A table measures in CI size on an embedded model unless options say otherwise; on other models, numbers of prompts are
the profile's. Measurements are on disk as soon as they are made: a killed run goes on where it stopped. The rows go to
paper-TABLE.json in --out; `--report` writes docs/paper.md from all that are there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from command_line import COUNT, NUMBERS, PATH, Numbers, script
from paper_tables.asked import Asked
from paper_tables.page import page
from paper_tables.registry import TABLES, in_ci_size
from quality import ROOT, header, written

from budc.cli.dependencies import quiet_libraries
from budc.schema.files import write_atomic


def asked(table: str, options: dict[str, Any]) -> Asked:
    """Return what is to be measured: the table in CI size, with the options that were given."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return replace(in_ci_size(table, given.pop("model", None), given.pop("work")), **given)


def record(table: str, request: Asked) -> dict[str, Any]:
    """Return what the results say beside the rows."""
    head = header(request.model, request.calibration, request.held_out, request.device)
    return {"table": table, "model": request.model} | {
        name: value for name, value in head.items() if name not in ("titles", "steps")
    }


@script(__doc__)
@click.option("--table", type=click.Choice(list(TABLES)))
@click.option("--report", is_flag=True, help="write docs/paper.md from the results in --out")
@click.option("--model", help="name, folder or profile, as --model of budc takes it")
@click.option("--to", help="transfer: the model that policies are moved to")
@click.option("--weights", type=PATH, help="folder of the model")
@click.option("--device", help="as that of budc; default the accelerator, or the CPU")
@click.option("--budgets", type=NUMBERS, help="evaluations a branch")
@click.option("--seeds", type=Numbers(0), help="convergence: random starts")
@click.option("--sizes", type=NUMBERS, help="calibration: numbers of prompts; search-space: numbers of steps")
@click.option("--reference-steps", type=click.IntRange(1, 1000), help="search-space: steps of the reference")
@click.option("--calibration", type=COUNT, help="calibration prompts")
@click.option("--held-out", type=COUNT, help="held-out prompts")
@click.option("--effort", type=click.Choice(["fast", "balanced", "thorough"]))
@click.option(
    "--against", help="main, video, generalisation: other methods, as --against of budc evaluate takes them"
)
@click.option("--metrics", help="the same: metrics of frames")
@click.option("--under", multiple=True, help="generalisation: a change of the setting; may be given again")
@click.option("--repeats", type=click.IntRange(0, 1000), help="the same: timed rounds")
@click.option("--work", type=PATH, default=ROOT / "out" / "paper", show_default=True)
@click.option("--out", type=PATH, default=ROOT / "benchmarks" / "results", show_default=True)
@click.option("--docs", type=PATH, default=ROOT / "docs", show_default=True)
def main(table: str | None, report: bool, out: Path, docs: Path, **options: Any) -> None:
    """Measure a table, or write the page."""
    quiet_libraries()
    if (table is None) is not report:
        raise click.UsageError("give --table NAME to measure, or --report to write the page")
    if table is None:
        results = {name: out / f"paper-{name}.json" for name in TABLES}
        found = {
            name: json.loads(path.read_text(encoding="utf-8"))
            for name, path in results.items()
            if path.is_file()
        }
        (docs / "paper.md").write_text(page(found), encoding="utf-8")
        return
    request = asked(table, options)
    rows = list(TABLES[table].module.measure(request))
    text = written(record(table, request), rows)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / f"paper-{table}.json", text.encode())
    click.echo(TABLES[table].module.markdown(rows))


if __name__ == "__main__":
    main()
