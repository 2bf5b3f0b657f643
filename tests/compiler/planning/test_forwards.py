"""Planned forwards beside those that compiles of the embedded models were counted to take."""

import json
from pathlib import Path
from typing import Any

import pytest

from budc.compiler.planning.forwards import CompileSettings, forwards_by_stage
from budc.compiler.selection.effort import EFFORTS
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


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("model", ["flux.1-dev", "wan2.1", "wan2.1-14b", "flux-nano", "wan2.1-nano"])
def test_an_alignment_takes_at_most_three_times_what_its_effort_takes(model: str, effort: str) -> None:
    profile = load_profile(model)
    for steps in {MEASURED["steps"], profile.steps}:
        for nfe in range(4, 25, 2):
            totals = []
            for align in (False, True):
                settings = CompileSettings(profile, (nfe,), steps, "joint", align=align, effort=effort)
                stages = forwards_by_stage(settings, costs()[model])
                totals.append(sum(count.expected for stage, count in stages.items() if stage != "report"))
            assert totals[1] <= 3 * totals[0], (steps, nfe)
