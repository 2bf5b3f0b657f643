"""The paper's tables: the page shows what was measured, and each table measures at its smallest size."""

import json
from pathlib import Path

import paper
import pytest
import transfer
from click.testing import CliRunner
from paper_tables.page import page
from paper_tables.registry import TABLES, in_ci_size

ROOT = Path(__file__).parents[2]


def call(*arguments):
    """Call benchmarks/paper.py; its switches for the libraries' messages would outlive the call."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(paper, "quiet_libraries", lambda: None)
        return CliRunner().invoke(paper.main, list(map(str, arguments)))


def test_the_page_is_written_from_the_results_that_are_there():
    found = {
        name: json.loads((ROOT / "benchmarks" / "results" / f"paper-{name}.json").read_text(encoding="utf-8"))
        for name in TABLES
        if (ROOT / "benchmarks" / "results" / f"paper-{name}.json").is_file()
    }
    assert found
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    assert text == page(found)
    for name, results in found.items():
        assert f"$ python benchmarks/paper.py --table {name}\n" in text
        assert results["command"] == f"python benchmarks/paper.py --table {name}"


def test_another_model_has_the_prompts_of_its_profile(tmp_path):
    assert in_ci_size("main", None, tmp_path).calibration == 8
    real = in_ci_size("main", "flux.1-dev", tmp_path)
    assert (real.calibration, real.held_out, real.metrics, real.effort) == (None, None, None, "thorough")


@pytest.mark.parametrize("arguments", [(), ("--table", "main", "--report"), ("--table", "mian")])
def test_it_says_what_to_give(arguments):
    outcome = call(*arguments)
    assert outcome.exit_code == 2
    assert "--table" in outcome.output


def test_what_the_package_refuses_is_said_in_a_line(tmp_path):
    outcome = call("--table", "main", "--model", "flux-nona", "--work", tmp_path, "--out", tmp_path)
    assert outcome.exit_code == 2
    assert outcome.output.startswith("error: --model: ")
    assert "flux-nano" in outcome.output


def test_a_transfer_is_asked_for_with_the_numbers_that_were_given(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(transfer, "measured", lambda *given: asked.append(given) or iter(()))
    outcome = call(
        "--table", "transfer", "--budgets", "6,8", "--calibration", 5, "--work", tmp_path, "--out", tmp_path
    )
    assert outcome.exit_code == 0, outcome.output
    ((pairs, budgets, seed, _, settings),) = asked
    assert (pairs, budgets, seed) == ([("wan2.1-nano", "wan2.1-mini")], (6, 8), 0)
    assert (settings["calibration_size"], settings["held_out_size"], settings["effort"]) == (5, 16, "fast")
    assert json.loads((tmp_path / "paper-transfer.json").read_text())["rows"] == []


SMALLEST = {
    "main": ("--against", "fewer-steps,uniform", "--metrics", "psnr", "--repeats", 1),
    "generalisation": (
        "--against",
        "uniform",
        "--metrics",
        "psnr",
        "--repeats",
        0,
        "--under",
        "scheduler=unipc",
    ),
    "convergence": ("--seeds", "0,1"),
    "search-space": ("--sizes", "4,6", "--reference-steps", 8),
    "calibration": ("--sizes", "1,2"),
}
ROWS = {"main": 2 + 3, "generalisation": 2 * (2 + 2), "convergence": 3, "search-space": 2, "calibration": 2}


@pytest.mark.slow
@pytest.mark.usefixtures("short_search")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("table", list(SMALLEST))
def test_each_table_measures_and_a_second_call_measures_nothing(table, flux_profile, flux_folder, tmp_path):
    common = ("--model", flux_profile, "--weights", flux_folder, "--device", "cpu", "--budgets", 3)
    prompts = ("--calibration", 3, "--held-out", 2, "--effort", "fast")
    places = ("--work", tmp_path / "work", "--out", tmp_path / "out")

    def run():
        outcome = call("--table", table, *common, *prompts, *SMALLEST[table], *places)
        assert outcome.exit_code == 0, outcome.output
        return json.loads((tmp_path / "out" / f"paper-{table}.json").read_text())

    results = run()
    assert len(results["rows"]) == ROWS[table]
    assert (results["calibration"], results["heldOut"], results["model"]) == (3, 2, flux_profile)
    assert TABLES[table].module.markdown(results["rows"]).count("\n| ") >= len(results["rows"]) / 4
    assert run()["rows"] == results["rows"]
