"""Error over the number of calibration prompts: `joint` on the first 1, 2, 4, ... of them, the same held-out ones.

    python benchmarks/calibration.py --models flux-nano --budgets 8 --json benchmarks/results/calibration-cpu.json

Rollouts are on disk as soon as they are measured, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from command_line import COUNT, MODELS, NUMBERS, PATH, check_budgets, script
from quality import ROOT, header, written
from quality_methods.budc_joint import budc_joint
from quality_methods.setting import Setting

from budc.cli.dependencies import quiet_libraries
from budc.compiler.rollouts.metrics import latent_errors, latent_metric


def measure(setting: Setting, nfe: int, size: int, effort: str = "thorough") -> dict[str, Any]:
    """Return the row of one policy, searched and fitted on `size` prompts."""
    outcome = budc_joint(setting, nfe, 0, setting.folder / f"joint-{nfe}-on-{size}", effort=effort)
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


@script(__doc__)
@click.option("--models", type=MODELS, default="flux-nano", show_default=True)
@click.option("--budgets", type=NUMBERS, default="8", show_default=True)
@click.option("--sizes", type=NUMBERS, default="1,2,4,8,16,32", show_default=True, help="calibration prompts")
@click.option("--held-out", type=COUNT, default=64, show_default=True, help="held-out prompts")
@click.option("--work", type=PATH, default=ROOT / "out" / "quality", show_default=True)
@click.option("--json", "target", type=PATH, required=True, help="where the rows go")
def main(
    models: tuple[str, ...],
    budgets: tuple[int, ...],
    sizes: tuple[int, ...],
    held_out: int,
    work: Path,
    target: Path,
) -> None:
    """Measure."""
    quiet_libraries()
    check_budgets(models, budgets)
    target.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    head = header(models[0], 0, held_out)
    head = {key: value for key, value in head.items() if key not in ("calibration", "titles")}
    for model in models:
        for size in sizes:
            setting = Setting(model, work / model, size, held_out)
            for nfe in budgets:
                rows.append(measure(setting, nfe, size))
                target.write_text(written(head, rows), encoding="utf-8")
                print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
