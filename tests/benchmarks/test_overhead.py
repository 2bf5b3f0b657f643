import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("wan2.1-nano", marks=pytest.mark.slow),
        pytest.param("flux-nano", marks=[pytest.mark.slow, pytest.mark.endless]),
    ],
)
def test_overhead_prints_a_ratio_for_every_budget(model, tmp_path):
    target = tmp_path / "results.json"
    command = [sys.executable, "benchmarks/overhead.py", "--models", model, "--budgets", "6,50"]
    command += ["--repeats", "1", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(target.read_text())["rows"]
    assert [row["nfe"] for row in rows] == [6, 50]
    assert all(0.5 < row["ratio"] < 50 for row in rows)
    assert rows[0]["loopSeconds"] < rows[1]["loopSeconds"]
    assert "ratio" in done.stdout
