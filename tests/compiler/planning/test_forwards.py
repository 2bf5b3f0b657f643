"""Planned forwards beside those that compiles of the embedded models were counted to take."""

import json
from pathlib import Path
from typing import Any

import pytest

from budc.compiler.planning.forwards import CompileSettings, forwards_by_stage
from budc.policies.costs import costs
from budc.policies.profile import load_profile

MEASURED = json.loads((Path(__file__).parents[3] / "benchmarks" / "results" / "quality.json").read_text())
METHODS: dict[str, dict[str, Any]] = {
    "joint": {},
    "joint-balanced": {"effort": "balanced"},
    "joint-fast": {"effort": "fast"},
    "joint-align": {"align": True},
}
COUNTED = [row for row in MEASURED["rows"] if row["method"] in METHODS]


def test_every_way_was_counted() -> None:
    assert {row["method"] for row in COUNTED} == METHODS.keys()


@pytest.mark.parametrize("row", COUNTED, ids=lambda row: f"{row['model']} {row['budget']} {row['method']}")
def test_the_default_search_takes_what_is_planned(row: dict[str, Any]) -> None:
    model = row["model"]
    settings = CompileSettings(
        load_profile(model),
        (row["budget"],),
        MEASURED["steps"],
        "joint",
        prompts=MEASURED["calibration"],
        **METHODS[row["method"]],
    )
    stages = forwards_by_stage(settings, costs()[model])
    planned = sum(count.expected for stage, count in stages.items() if stage != "report")
    assert planned == pytest.approx(row["searchForwards"], rel=0.1)
