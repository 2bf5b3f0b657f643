"""The example for Slurm, run by its local executor."""

import subprocess
import sys
from pathlib import Path

import pytest

from budc.schema.artifact import read

EXAMPLE = Path(__file__).parents[2] / "examples" / "slurm" / "compile.py"
FLAGS = ["--model", "flux-nano", "--steps", "6", "--budget", "3", "--search", "uniform", "--no-frames"]


def call(folder, *flags):
    arguments = ["--cluster", "local", "--gpus", "0", "--jobs", "2", "--folder", folder / "shards"]
    command = [
        sys.executable,
        EXAMPLE,
        *arguments,
        "--out",
        folder / "policy.budc.json",
        "--",
        *FLAGS,
        *flags,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_jobs_make_the_shards_and_a_third_one_the_policy(tmp_path):
    pytest.importorskip("submitit")
    done = call(tmp_path, "--calibration-size", "4", "--held-out-size", "4")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "shards").glob("shard-*-of-2.*"))) == 2
    document = read(tmp_path / "policy.budc.json").document
    assert document.budget.nfe == 3
    assert document.quality.held_out.size == 4


@pytest.mark.slow
def test_a_shard_that_fails_is_named(tmp_path):
    pytest.importorskip("submitit")
    done = call(tmp_path, "--calibration", "nowhere.txt")
    assert done.returncode == 1
    assert "shards [1, 2] failed" in done.stderr
