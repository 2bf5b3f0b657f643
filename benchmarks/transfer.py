"""Policies moved between sizes of a model: what a transferred policy loses against one searched on the target.

    python benchmarks/transfer.py --pairs wan2.1-nano:wan2.1-mini,wan2.1-mini:wan2.1-nano --json results.json
    python benchmarks/transfer.py --report results.json

The first command compiles every budget on every model, thoroughly, and transfers each policy to the
pair's other model. Artifacts that are in --work already are used, so a killed run goes on. The second prints the table
of docs/transfer.md. The share of the gain that is kept is

    (log error of the uniform mask - log error of the transferred policy)
    / (log error of the uniform mask - log error of the native policy)

on geometric means over the target's held-out prompts; above 1 the transferred policy lost less than the native one.
"""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from command_line import NUMBERS, PATH, RESULTS, check_budgets, script

from budc.cli.dependencies import quiet_libraries
from budc.compiler.compile import compile_artifacts
from budc.compiler.request import CompileRequest
from budc.compiler.transfer import transfer
from budc.compiler.transfer_request import TransferRequest
from budc.policies.model_choice import choose_model
from budc.schema.artifact import SUFFIX, Artifact, read

ROOT = Path(__file__).parents[1]
COLUMNS = {
    "uniform": "uniform mask",
    "fewer-steps": "plain steps",
    "frozen": "transferred, frozen",
    "fitted": "transferred, fitted",
    "nearby": "--nearby",
    "native": "native search",
}
KEPT = "frozen", "fitted", "nearby"

Settings = Mapping[str, Any]
THOROUGH: Settings = {"effort": "thorough"}


def family(
    model: str, budgets: Sequence[int], seed: int, work: Path, settings: Settings = THOROUGH
) -> dict[int, Artifact]:
    """Return the model's own policies by NFE, compiled in one sweep unless they are in `work`."""
    folder = work / model
    folder.mkdir(parents=True, exist_ok=True)
    paths = {nfe: folder / f"{model}-nfe{nfe}{SUFFIX}" for nfe in budgets}
    if missing := [nfe for nfe, path in paths.items() if not path.is_file()]:
        sweep = ",".join(map(str, missing))
        request = CompileRequest(model=model, sweep=sweep, seed=seed, out=folder, **settings)
        compile_artifacts(request.resolve())
    return {nfe: read(path) for nfe, path in paths.items()}


def moved(
    source: Artifact,
    model: str,
    seed: int,
    work: Path,
    settings: Settings = THOROUGH,
    *,
    nearby: bool = False,
) -> Artifact:
    """Return a policy transferred to `model` and fitted there; `nearby` also tries masks near its own."""
    path = work / model / f"{'near' if nearby else 'from'}-{source.document.name}{SUFFIX}"
    if not path.is_file():
        request = TransferRequest(source=source, to=model, out=path, seed=seed, nearby=nearby, **settings)
        transfer(request.resolve())
    return read(path)


def row(source: str, transferred: Artifact, near: Artifact, native: Artifact) -> dict[str, Any]:
    """Return what artifacts of one model and budget report: errors, PSNR in dB, and what each search cost."""
    document, own = transferred.document, native.document
    reports = {baseline.name: baseline.metrics for baseline in document.quality.baselines}
    searched = {"fitted": document, "nearby": near.document, "native": own}
    reports |= {name: policy.quality.metrics for name, policy in searched.items()}
    latents, frames = ({name: reports[name][index] for name in COLUMNS} for index in (0, 1))
    errors = {name: float(latents[name].geometric_mean or latents[name].mean) for name in COLUMNS}
    return {
        "from": source,
        "to": document.model.profile,
        "budget": document.budget.nfe,
        "error": errors,
        "mean": {name: latents[name].mean for name in COLUMNS},
        "psnr": {name: frames[name].mean for name in COLUMNS},
        "kept": {name: kept(errors, name) for name in KEPT},
        "forwards": {name: policy.search.forwards for name, policy in searched.items()},
    }


def kept(errors: Mapping[str, float], name: str) -> float:
    """Return the share of the native search's gain over the uniform mask that a policy keeps, on logarithms."""
    return math.log(errors["uniform"] / errors[name]) / math.log(errors["uniform"] / errors["native"])


def measured(
    pairs: Sequence[tuple[str, str]],
    budgets: Sequence[int],
    seed: int,
    work: Path,
    settings: Settings = THOROUGH,
) -> Iterator[dict[str, Any]]:
    """Yield a row for every pair and budget; `settings` are further fields of both requests."""
    for origin, target in pairs:
        own = family(target, budgets, seed, work, settings)
        for nfe, source in family(origin, budgets, seed, work, settings).items():
            fitted, near = (
                moved(source, target, seed, work, settings, nearby=nearby) for nearby in (False, True)
            )
            yield row(origin, fitted, near, own[nfe])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table in Markdown."""
    heads = ["from", "to", "NFE", *COLUMNS.values(), *(f"gain kept, {name}" for name in KEPT)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for entry in rows:
        cells = [entry["from"], entry["to"], str(entry["budget"])]
        cells += [f"{entry['error'][name]:.2g}" for name in COLUMNS]
        cells += [f"{100 * entry['kept'][name]:.0f} %" for name in KEPT]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


class Pairs(click.ParamType[tuple[tuple[str, str], ...]]):
    """Pairs of models with commas between them."""

    name = "FROM:TO,FROM:TO"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[str, str], ...]:
        """Return the models of each pair."""
        if isinstance(value, tuple):
            return value
        pairs = [tuple(pair.split(":")) for pair in str(value).split(",")]
        if wrong := [pair for pair in pairs if len(pair) != 2]:
            self.fail(f"{':'.join(wrong[0])!r}: write FROM:TO, two models", param, ctx)
        for name in {name for pair in pairs for name in pair}:
            choose_model(name, "--pairs")
        return tuple((origin, to) for origin, to in pairs)


@script(__doc__)
@click.option(
    "--pairs", type=Pairs(), default="wan2.1-nano:wan2.1-mini,wan2.1-mini:wan2.1-nano", show_default=True
)
@click.option("--budgets", type=NUMBERS, default="6,8,10,14", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--work", type=PATH, default=ROOT / "out" / "transfer", show_default=True)
@click.option("--json", "target", type=PATH, help="where the rows go")
@click.option("--report", type=RESULTS, help="print the table of a results file")
def main(
    pairs: tuple[tuple[str, str], ...],
    budgets: tuple[int, ...],
    seed: int,
    work: Path,
    target: Path | None,
    report: dict[str, Any] | None,
) -> None:
    """Measure, or print the table."""
    if report is not None:
        click.echo(table(report["rows"]))
        return
    quiet_libraries()
    check_budgets({name for pair in pairs for name in pair}, budgets)
    rows = list(measured(pairs, budgets, seed, work))
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "device": f"CPU, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "rows": rows,
    }
    if target is not None:
        target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo(table(rows))


if __name__ == "__main__":
    main()
