"""The error over the number of calibration prompts: the guide shows what was measured, and the script measures."""

import json
from pathlib import Path

import calibration
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]


def test_the_guide_shows_what_was_measured():
    results = json.loads(
        (ROOT / "benchmarks" / "results" / "calibration-cpu.json").read_text(encoding="utf-8")
    )
    guide = (ROOT / "docs" / "compile.md").read_text(encoding="utf-8")
    assert [row["calibration"] for row in results["rows"]] == [1, 2, 4, 8, 16, 32]
    for row in results["rows"]:
        error = row["error"]
        cells = f"{error['geometricMean']:.2g} | {error['p95']:.2g} | {row['searchForwards']:,}"
        assert f"| {row['calibration']} | {cells} |" in guide


@pytest.mark.slow
def test_every_size_is_a_row_and_a_second_call_measures_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "quiet_libraries", lambda: None)

    def run():
        target = tmp_path / "rows.json"
        sizes = ("--budgets", "2", "--sizes", "1,2", "--held-out", "1")
        outcome = CliRunner().invoke(
            calibration.main, [*sizes, "--work", str(tmp_path / "work"), "--json", str(target)]
        )
        assert outcome.exit_code == 0, outcome.output
        return json.loads(target.read_text(encoding="utf-8"))["rows"]

    rows = run()
    assert [row["calibration"] for row in rows] == [1, 2]
    assert rows[0]["searchForwards"] < rows[1]["searchForwards"]
    assert run() == rows
