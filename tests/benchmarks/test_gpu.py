"""The GPU benchmark's own code on the CPU, on a model small enough: what it counts and what it leaves behind."""

import importlib.util
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
ROOT = Path(__file__).parents[2]
HAS_CACHE_DIT = find_spec("cache_dit") is not None
PEERS = ["cache-dit"] * HAS_CACHE_DIT + ["MagCache"]


def gpu(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_outputs_of_a_module_that_writes_into_the_same_memory_are_kept():
    from random_models.sampling import keep_outputs

    module, memory = torch.nn.Identity(), torch.zeros(2)
    module._compiled_call_impl = lambda value, **_: (memory.fill_(value), None)
    keep_outputs(module)
    first, _ = module(1.0, return_dict=False)
    module(2.0, return_dict=False)
    assert first.tolist() == [1.0, 1.0]


@pytest.mark.slow
def test_methods_are_compared_by_what_they_really_ran(tmp_path):
    small = (
        "--device",
        "cpu",
        "--modes",
        "eager",
        "--prompts",
        2,
        "--repeats",
        1,
        "--peers",
        ",".join(PEERS),
    )
    done = gpu("--models", "flux-nano", *small, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert list(rows) == ["budc", *PEERS]
    assert rows["budc"]["nfe"] == 10
    if HAS_CACHE_DIT:
        # It runs its first block at every step.
        assert 10 < rows["cache-dit"]["nfe"] < 25
    # Its first step is outside of its rhythm.
    assert rows["MagCache"]["nfe"] == pytest.approx(10, abs=0.5)
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["loopSeconds"] / row["nfe"] / row["forwardSeconds"])
        assert row["spread"]["prompts"] == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--models", "z-image", "--device", "cpu", "--peers", "MagCache"), "ZImagePipeline"),
        (("--device", "cpu"), "budc[bench]"),
        (("--models", "nope", "--device", "cpu", "--peers", "MagCache"), "nope"),
        (("--device", "cpu", "--modes", "fast"), "fast"),
        (("--device", "cpu", "--peers", "x"), "x"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, word, monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "find_spec", lambda _: None)
    refusal = CliRunner().invoke(benchmark.main, arguments)
    assert refusal.exit_code == 2
    assert word in refusal.stderr
