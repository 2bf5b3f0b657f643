"""Error over the number of calibration prompts: `joint` on the first 1, 2, 4, ... of them, the same held-out ones.

    python benchmarks/calibration.py --models flux-nano --budgets 8 --json benchmarks/results/calibration-cpu.json

Rollouts are on disk as soon as they are measured, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from quality import ROOT, header, written
from quality_methods.budc_joint import budc_joint
from quality_methods.setting import Setting

from budc.cli.dependencies import quiet_libraries
from budc.compiler.rollouts.metrics import latent_errors, latent_metric


def measure(setting: Setting, nfe: int, size: int) -> dict[str, Any]:
    """Return the row of one policy, searched and fitted on `size` prompts."""
    outcome = budc_joint(setting, nfe, 0, setting.folder / f"joint-{nfe}-on-{size}")
    errors = latent_metric(latent_errors(outcome.latents, setting.held_out.run.latents))
    return {
        "model": setting.name,
        "budget": nfe,
        "calibration": size,
        "error": {
            "geometricMean": errors.geometric_mean,
            "mean": errors.mean,
            "standardError": errors.standard_error,
            "p95": errors.p95,
        },
        "searchForwards": outcome.forwards,
    }


@click.command(help=__doc__)
@click.option("--models", default="flux-nano", show_default=True)
@click.option("--budgets", default="8", show_default=True)
@click.option("--sizes", default="1,2,4,8,16,32", show_default=True, help="calibration prompts")
@click.option("--held-out", type=int, default=64, show_default=True, help="held-out prompts")
@click.option("--work", type=click.Path(path_type=Path), default=ROOT / "out" / "quality", show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), required=True, help="where the rows go")
def main(models: str, budgets: str, sizes: str, held_out: int, work: Path, target: Path) -> None:
    """Measure."""
    quiet_libraries()
    rows: list[dict[str, Any]] = []
    head = header(models.split(",")[0], 0, held_out)
    head = {key: value for key, value in head.items() if key not in ("calibration", "titles")}
    for model in models.split(","):
        for size in map(int, sizes.split(",")):
            setting = Setting(model, work / model, size, held_out)
            for nfe in map(int, budgets.split(",")):
                rows.append(measure(setting, nfe, size))
                target.write_text(written(head, rows), encoding="utf-8")
                print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
