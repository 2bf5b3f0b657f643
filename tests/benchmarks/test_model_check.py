"""The check of the model at the beginning of a run: the benchmark runs, and its figures in the docs keep the promise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_times_the_check_of_every_tensor_beside_a_forward(tmp_path):
    target = tmp_path / "results.json"
    command = [sys.executable, "benchmarks/model_check.py", "--heads", "1", "--repeats", "1"]
    command += ["--device", "cpu", "--cells", "2"]
    done = subprocess.run(
        [*command, "--json", str(target)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(target.read_text())["rows"]
    assert [(row["model"], row["tensors"]) for row in rows] == [
        ("FLUX.1-dev", 1160),
        ("Wan2.1-T2V-1.3B", 827),
    ]
    assert all(0 < row["checkSeconds"] < row["forwardSeconds"] for row in rows)
    assert "ratio" in done.stdout


def test_it_costs_under_one_percent_of_a_forward_at_real_widths():
    result = json.loads((ROOT / "benchmarks" / "results" / "model-check-cpu.json").read_text())
    assert result["command"].startswith("python benchmarks/model_check.py --repeats")
    assert [row["parameters"] > 1e9 for row in result["rows"]] == [True, True]
    assert all(row["ratio"] < 0.01 for row in result["rows"])
