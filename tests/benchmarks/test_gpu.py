"""The GPU benchmark's own code on the CPU, on a model small enough: what it counts and what it leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("cache_dit")
ROOT = Path(__file__).parents[2]


def gpu(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_methods_are_compared_by_what_they_really_ran(tmp_path):
    small = ("--device", "cpu", "--modes", "eager", "--prompts", 2, "--repeats", 1)
    done = gpu("--models", "flux-nano", *small, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert rows.keys() == {"budc", "cache-dit", "MagCache"}
    assert rows["budc"]["nfe"] == 10
    # Of its blocks cache-dit runs the first at every step; MagCache's first step is outside of its rhythm.
    assert 10 < rows["cache-dit"]["nfe"] < 25
    assert rows["MagCache"]["nfe"] == pytest.approx(10, abs=0.5)
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["loopSeconds"] / row["nfe"] / row["forwardSeconds"])
        assert row["spread"]["prompts"] == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--models", "z-image", "--device", "cpu"), "ZImagePipeline"),
        (("--device", "cpu", "--modes", "fast"), "fast"),
        (("--device", "cpu", "--peers", "x"), "x"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, word):
    done = gpu(*arguments)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
