import json
import subprocess
import sys
from pathlib import Path

import pytest
from runtimes_compared.table import lines

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["runtimes", "runtimes-mini", "runtimes-flux", "runtimes-wan2.1-random"])
def test_the_guide_shows_what_was_measured(name):
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}-cpu.json").read_text())
    printed = [line for line in lines(result) if line.startswith(("diffusers ", "onnxruntime "))]
    shown = (ROOT / "docs" / "onnx.md").read_text().splitlines()
    if name in ("runtimes-mini", "runtimes-flux"):
        printed = [line for line in printed if line.startswith("onnxruntime")]
    assert printed
    assert [line for line in shown if line in printed] == printed


@pytest.mark.slow
@pytest.mark.endless
@pytest.mark.parametrize(
    "model", [["wan2.1-nano"], ["flux-nano"], ["wan2.1-nano", "--random", "32x32x5"]], ids=" ".join
)
def test_both_runtimes_are_measured_and_agree(model, tmp_path):
    target = tmp_path / "results.json"
    command = [sys.executable, "benchmarks/runtimes.py", "--model", *model, "--budgets", "6,50"]
    command += ["--repeats", "1", "--json", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(target.read_text())
    assert [(row["runtime"], row["nfe"], row["payload"]) for row in result["rows"]] == [
        (runtime, nfe, payload)
        for runtime in ("diffusers", "onnxruntime")
        for nfe, payload in ((6, "trunk-residual"), (6, "velocity"), (50, "trunk-residual"))
    ]
    assert all(0 < row["maxRelativeDifference"] < 1e-4 for row in result["rows"])
    assert all(0.5 < row["ratio"] < 50 for row in result["rows"])
    assert result["torchImported"] == {"diffusers": True, "onnxruntime": False}
    assert result["importSeconds"]["onnxruntime"] < result["importSeconds"]["diffusers"]
    assert result["peakBytes"]["onnxruntime"] < result["peakBytes"]["diffusers"]
