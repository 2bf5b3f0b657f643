"""Every table by name, and its size on the embedded models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from budc.policies.model_choice import choose_model
from paper_tables import calibration_size, convergence, generalisation, methods, search_space, transferred
from paper_tables.asked import Asked, Row

VIDEO = "fewer-steps,uniform,teacache,magcache,taylorseer-1,dpcache,dpcache-linear"
IMAGES = f"{VIDEO},lemica,paper,paper-aligned"


class Measured(Protocol):
    """A module of a table."""

    def measure(self, asked: Asked) -> Iterator[Row]:
        """Yield the rows."""

    def markdown(self, rows: Sequence[Row]) -> str:
        """Return them as a table."""


class Table(NamedTuple):
    """A table: its heading, what the paper shows there, its module, and what is asked for in CI size."""

    title: str
    of_paper: str
    module: Measured
    ci: Mapping[str, Any]


_SMALL = {"calibration": 8, "held_out": 16, "effort": "fast"}

TABLES: Mapping[str, Table] = {
    "main": Table(
        "Images",
        "The main table, of FLUX.1-dev with 28 steps at 6 to 10 evaluations, beside threshold methods.",
        methods,
        {
            "model": "flux-nano",
            "budgets": (8,),
            "against": IMAGES,
            "metrics": "psnr,ssim,flip",
            **_SMALL,
        },
    ),
    "video": Table(
        "Video",
        "The same for Wan2.1 with 50 steps at 10 to 20 evaluations.",
        methods,
        {
            "model": "wan2.1-nano",
            "budgets": (10,),
            "against": VIDEO,
            "metrics": "psnr,ssim,vmaf",
            **_SMALL,
        },
    ),
    "generalisation": Table(
        "Other settings",
        "A policy as it was found, with other solvers, aspect ratios and adapters.",
        generalisation,
        {
            "model": "flux-nano",
            "budgets": (8,),
            "against": IMAGES,
            "metrics": "psnr",
            "under": (
                "scheduler=unipc",
                "scheduler=dpm",
                "scheduler=ipndm2m",
                "size=64x96",
                "guidance=2",
            ),
            "repeats": 0,
            **_SMALL,
        },
    ),
    "transfer": Table(
        "Another size of the model",
        "The mask of Wan2.1 1.3B on Wan2.1 14B.",
        transferred,
        {"model": "wan2.1-nano", "to": "wan2.1-mini", "budgets": (8,), **_SMALL},
    ),
    "convergence": Table(
        "Convergence",
        "The loss over the iterations of the search, from several random starts.",
        convergence,
        # Losses of an effort with groups of prompts make no curve.
        {"model": "flux-nano", "budgets": (8,), "seeds": (0, 1, 2), **_SMALL, "effort": "thorough"},
    ),
    "search-space": Table(
        "Search space",
        "The total steps varied at a fixed number of evaluations.",
        search_space,
        {
            "model": "flux-nano",
            "budgets": (8,),
            "sizes": (12, 28, 50),
            "reference_steps": 100,
            **_SMALL,
        },
    ),
    "calibration": Table(
        "Calibration prompts",
        "The error over the number of prompts that are searched on.",
        calibration_size,
        # A smaller effort takes no more than a few of them.
        {"model": "flux-nano", "budgets": (8,), "sizes": (1, 2, 4), **_SMALL, "effort": "thorough"},
    ),
}


def in_ci_size(table: str, model: str | None, work: Path) -> Asked:
    """Return what a table measures on its embedded model; on others, with the numbers of prompts of their profiles."""
    fields: dict[str, Any] = {"work": work, **TABLES[table].ci}
    if model is not None:
        fields["model"] = model
        if not choose_model(model).embedded:
            fields = {name: value for name, value in fields.items() if name not in (*_SMALL, "metrics")}
    return Asked(**fields)
