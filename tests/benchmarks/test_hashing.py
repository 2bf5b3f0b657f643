"""The hashing benchmark at a size that measures nothing: it runs and its figures belong to its methods."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "hashing.py"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_runs(tmp_path):
    command = [
        sys.executable,
        BENCHMARK,
        "--megabytes",
        "2",
        "--files",
        "2",
        "--rounds",
        "1",
        "--json",
        "r.json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["bytes"] > 1_900_000
    assert all(seconds > 0 for seconds in record["seconds"].values())
    assert [line for line in done.stdout.splitlines() if line.startswith("sha256sum, one process")]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="nobody counts what is read")
def test_a_model_is_read_once_and_then_not_at_all(tmp_path):
    command = [sys.executable, BENCHMARK, "--megabytes", "64", "--files", "4", "--read"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "read 1.000" in done.stdout
    assert "0.000" in done.stdout.partition("first, ")[2]
