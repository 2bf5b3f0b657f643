"""The table of transfers: figures come from the artifacts' reports, and the guide shows what was measured."""

import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from budc.schema.policy import Baseline, Metric

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("transfer_benchmark", ROOT / "benchmarks" / "transfer.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)


@dataclass
class Made:
    """What the benchmark reads of an artifact."""

    document: object


def metrics(error):
    return [
        Metric(name=name, mean=mean, standard_error=0, worst=mean, geometric_mean=error, samples=4)
        for name, mean in (("latent-mse", 2 * error), ("psnr", -10 * math.log10(error)))
    ]


@pytest.fixture
def artifact(make_document):
    def artifact(error, forwards, **beside):
        document = make_document()
        baselines = [Baseline(name=name, nfe=3, metrics=metrics(value)) for name, value in beside.items()]
        baselines.append(Baseline(name="full", nfe=6, metrics=metrics(1e-30)[:1]))
        quality = msgspec.structs.replace(document.quality, metrics=metrics(error), baselines=baselines)
        search = msgspec.structs.replace(document.search, forwards=forwards)
        return Made(msgspec.structs.replace(document, quality=quality, search=search))

    return artifact


def test_a_row_is_what_two_reports_say(artifact):
    beside = {"uniform": 0.1, "fewer-steps": 0.03}
    made = [artifact(0.01, 120, frozen=0.02, **beside), artifact(0.005, 900), artifact(0.001, 4000, **beside)]
    row = benchmark.row("small", *made)
    assert row["error"] == {
        "uniform": 0.1,
        "fewer-steps": 0.03,
        "frozen": 0.02,
        "fitted": 0.01,
        "nearby": 0.005,
        "native": 0.001,
    }
    assert row["mean"]["fitted"] == pytest.approx(0.02)
    assert row["psnr"]["native"] == pytest.approx(30)
    assert row["forwards"] == {"fitted": 120, "nearby": 900, "native": 4000}
    assert row["kept"]["fitted"] == pytest.approx(0.5)
    assert row["kept"]["frozen"] == pytest.approx(math.log10(5) / 2)
    cells = [cell.strip() for cell in benchmark.table([row]).splitlines()[-1].strip("|").split("|")]
    assert cells[3:] == ["0.1", "0.03", "0.02", "0.01", "0.005", "0.001", "35 %", "50 %", "65 %"]


def test_artifacts_that_stand_are_taken_as_they_are(artifact, tmp_path, monkeypatch):
    compiled, carried = [], []
    family = {6: "six", 8: "eight"}
    for request in (benchmark.CompileRequest, benchmark.TransferRequest):
        monkeypatch.setattr(request, "resolve", lambda self: self)
    monkeypatch.setattr(benchmark, "read", lambda path: family[int(path.name.split("nfe")[1].split(".")[0])])
    monkeypatch.setattr(benchmark, "compile_artifacts", lambda request: compiled.append(request.sweep))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model-nfe6.budc.json").touch()
    assert benchmark.family("model", [6, 8], 0, tmp_path) == family
    assert compiled == ["8"]
    monkeypatch.setattr(benchmark, "transfer", lambda request: carried.append(request.out.name))
    source = artifact(0.1, 1)
    name = f"from-{source.document.name}.budc.json"
    monkeypatch.setattr(benchmark, "read", lambda path: path.name)
    for _ in range(2):
        assert benchmark.moved(source, "model", 0, tmp_path) == name
        (tmp_path / "model" / name).touch()
    near = name.replace("from", "near", 1)
    assert benchmark.moved(source, "model", 0, tmp_path, nearby=True) == near
    assert carried == [name, near]


def test_the_guide_shows_the_table_that_was_measured():
    results = json.loads((ROOT / "benchmarks" / "results" / "transfer-cpu.json").read_text())
    assert benchmark.table(results["rows"]) in (ROOT / "docs" / "transfer.md").read_text()


def test_what_the_guide_says_is_what_was_measured():
    results = json.loads((ROOT / "benchmarks" / "results" / "transfer-cpu.json").read_text())
    text = " ".join((ROOT / "docs" / "transfer.md").read_text().split())
    for name, words in (("fitted", "the first keeps {} to {} %"), ("nearby", "the second {} to {} %")):
        shares = [round(100 * row["kept"][name]) for row in results["rows"]]
        assert words.format(min(shares), max(shares)) in text
