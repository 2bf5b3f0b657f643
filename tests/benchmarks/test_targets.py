"""What other engines lose: the guide shows what was measured, and the script measures."""

import json
from pathlib import Path

import pytest
import targets
from click.testing import CliRunner

ROOT = Path(__file__).parents[2]

RESULTS = json.loads((ROOT / "benchmarks" / "results" / "targets-cpu.json").read_text(encoding="utf-8"))
ROWS = [row for row in RESULTS["rows"] if "own" in row]


def shown(error):
    return "–" if error is None else f"{error:.2g}"


def test_the_guide_shows_what_was_measured():
    guide = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")
    assert (RESULTS["steps"], RESULTS["budget"], RESULTS["heldOut"]) == (12, "5", 32)
    for row in ROWS:
        lost = ", ".join(row["lost"]) or "refused"
        cells = (shown(row["own"]), shown(row["exported"]), lost, shown(row.get("madeFor")))
        assert f"| `{row['model']}` | `{row['target']}` | {' | '.join(cells)} |" in guide
    differences = [row["engineDiffers"] for row in ROWS if "engineDiffers" in row]
    assert differences == [0.0, 0.0]
    made = [row for row in ROWS if row.get("madeFor") and row["exported"]]
    assert sum(row["madeFor"] < row["exported"] for row in made) > len(made) / 2


@pytest.mark.slow
def test_the_script_measures_and_a_second_call_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "quiet_libraries", lambda: None)

    def run():
        path = tmp_path / "rows.json"
        options = ("--models", "wan2.1-nano", "--targets", "diffusers-magcache,sd.cpp", "--steps", "6")
        work = ("--budget", "2", "--held-out", "2", "--work", str(tmp_path / "work"), "--json", str(path))
        outcome = CliRunner().invoke(targets.main, [*options, *work])
        assert outcome.exit_code == 0, outcome.output
        return json.loads(path.read_text(encoding="utf-8"))["rows"]

    rows = run()
    assert rows[0]["engineDiffers"] < 1e-5
    assert rows[0]["madeFor"] > 0
    assert "refused" in rows[1]
    artifacts = {path: path.stat().st_mtime for path in (tmp_path / "work").iterdir()}
    assert run() == rows
    assert {path: path.stat().st_mtime for path in (tmp_path / "work").iterdir()} == artifacts
