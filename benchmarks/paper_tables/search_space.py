"""Search space: the total steps varied at a fixed number of evaluations, all against one reference of many steps.

With more steps there are more masks to choose from. A policy is searched against the full run of its own number of
steps, and measured against that and against the reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from quality_methods.budc_joint import budc_joint
from quality_methods.outcome import run_fitted
from torch import Tensor

from budc.compiler.comparison.paper_search import paper
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.schema.files import write_atomic
from paper_tables.asked import Asked, Row
from paper_tables.markdown import figure, table


def measure(asked: Asked) -> Iterator[Row]:
    """Yield a row for each budget and number of steps."""
    assert asked.reference_steps is not None
    reference = asked.setting(steps=asked.reference_steps).held_out.run.latents
    for nfe in asked.budgets:
        for steps in asked.sizes:
            path = asked.folder / f"row-{nfe}-of-{steps}-against-{asked.reference_steps}.json"
            if not path.is_file():
                write_atomic(path, json.dumps(_row(asked, nfe, steps, reference)).encode())
            row: Row = json.loads(path.read_text(encoding="utf-8"))
            yield row


def _row(asked: Asked, nfe: int, steps: int, reference: Tensor) -> Row:
    setting, work = asked.setting(steps=steps), asked.folder / f"nfe{nfe}-of-{steps}"
    own = setting.held_out.run.latents
    joint = budc_joint(setting, nfe, 0, work / "joint", effort=asked.effort)
    searched = run_fitted(setting, paper(setting, nfe, 0, work / "paper", prompts=1))
    return {
        "budget": nfe,
        "steps": steps,
        "referenceSteps": asked.reference_steps,
        "full": _error(own, reference),
        **{
            name: {"own": _error(outcome.latents, own), "reference": _error(outcome.latents, reference)}
            for name, outcome in (("joint", joint), ("paper", searched))
        },
        "forwards": {"joint": joint.forwards, "paper": searched.forwards},
    }


def _error(latents: Tensor, reference: Tensor) -> float | None:
    return latent_metric(latent_errors(latents, reference)).geometric_mean


def markdown(rows: Sequence[Row]) -> str:
    """Return a table for each budget."""
    text = ""
    for nfe in dict.fromkeys(row["budget"] for row in rows):
        cell = [row for row in rows if row["budget"] == nfe]
        heads = [
            "steps",
            "full run",
            "`joint`",
            "paper's search",
            "`joint` against its full run",
            "paper's, the same",
        ]
        lines = [
            [
                str(row["steps"]),
                figure(row["full"]),
                *(
                    figure(row[name][against])
                    for against in ("reference", "own")
                    for name in ("joint", "paper")
                ),
            ]
            for row in cell
        ]
        text += f"\nNFE {nfe}, latent error against {cell[0]['referenceSteps']} steps:\n\n" + table(
            heads, lines
        )
    return text.lstrip("\n")
