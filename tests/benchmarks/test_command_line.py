"""Every script of benchmarks/ ends as budc's commands do where an argument is wrong: in a line, with what to do."""

import importlib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("diffusers")


import command_line

FOLDER = Path(__file__).parents[2] / "benchmarks"

SCRIPTS = sorted(
    path.stem for path in FOLDER.glob("*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
WRONG = {
    "calibration": [
        (("--models", "flux-nona"), 2, "--models: no profile named 'flux-nona'"),
        (("--sizes", "1,two"), 2, "whole numbers"),
        (("--budgets", "90"), 51, "--budgets: '90'"),
    ],
    "count_costs": [(("--models", "nope"), 2, "nope is none of")],
    "demo": [
        (("--model", "nope"), 2, "--model: no profile named 'nope'"),
        (("--samples", "0"), 2, "--samples"),
    ],
    "embedded_policies": [
        (("--models", "nope"), 2, "nope is none of flux-nano"),
        (("--budgets", "x"), 2, "whole numbers"),
    ],
    "gpu": [
        (("--models", "nope"), 2, "--models: no profile named 'nope'"),
        (("--nfe", "90", "--peers", ""), 51, "--nfe: '90'"),
        (("--device", "abacus"), 2, "--device"),
        (("--modes", "eager,lazy"), 2, "lazy is none of"),
    ],
    "hashing": [(("--files", "0"), 2, "--files")],
    "model_check": [(("--models", "nope"), 2, "nope is none of"), (("--repeats", "0"), 2, "--repeats")],
    "overhead": [
        (("--models", "nope"), 2, "--models: no profile named 'nope'"),
        (("--budgets", "6,ten"), 2, "whole numbers"),
        (("--budgets", "51"), 51, "--budgets: '51'"),
    ],
    "paper": [
        (("--table", "main", "--model", "flux-nona"), 2, "--model: no profile named 'flux-nona'"),
        (("--table", "main", "--budgets", "six"), 2, "whole numbers"),
        (("--table", "mian"), 2, "--table"),
        ((), 2, "give --table NAME"),
    ],
    "picture": [(("nowhere.budc.json",), 2, "nowhere.budc.json")],
    "quality": [
        (("--models", "nope"), 2, "--models: no profile named 'nope'"),
        (("--methods", "unifrom"), 2, "unifrom is none of"),
        (("--budgets", "90"), 51, "--budgets: '90'"),
        (("--seeds", "-1"), 2, "whole numbers"),
        (("--report", "nowhere.json"), 2, "nowhere.json"),
        (("--device", "abacus"), 2, "--device: 'abacus' is no device"),
    ],
    "runtimes": [
        (("--model", "nope"), 2, "--model: no profile named 'nope'"),
        (("--payloads", "nope"), 2, "nope is none of"),
        (("--provider", "abacus"), 2, "--provider"),
        (("--random", "64x64"), 2, "--random: '64x64'"),
    ],
    "scaling": [(("--model", "nope"), 2, "--model: no profile named 'nope'")],
    "scaling_simulation": [
        (("--model", "nope"), 2, "--model: no profile named 'nope'"),
        (("--effort", "heroic"), 2, "--effort: no effort named 'heroic'"),
        (("--device", "abacus"), 2, "--device: no device named 'abacus'"),
        (("--budget", "90"), 51, "--budget: '90'"),
    ],
    "targets": [
        (("--targets", "nope"), 2, "nope is none of"),
        (("--models", "nope"), 2, "--models: no profile named 'nope'"),
        (("--budget", "13"), 51, "--budget: '13'"),
    ],
    "transfer": [
        (("--pairs", "wan2.1-nano"), 2, "write FROM:TO"),
        (("--pairs", "wan2.1-nano:nope"), 2, "--pairs: no profile named 'nope'"),
        (("--budgets", "90"), 51, "--budgets: '90'"),
        (("--report", __file__), 2, "test_command_line.py"),
    ],
}
NEEDED = {
    "calibration": ("--json", "rows.json"),
    "demo": ("--out", "out"),
    "targets": ("--json", "rows.json"),
}


def ending(name, arguments, monkeypatch):
    """Call a script, whose switches for the libraries' messages would outlive the call."""
    module = importlib.import_module(name)
    monkeypatch.setattr(module, "quiet_libraries", lambda: None, raising=False)
    return CliRunner().invoke(module.main, list(arguments), prog_name=f"python benchmarks/{name}.py")


def test_wrong_arguments_are_tried_of_every_script():
    assert sorted(WRONG) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_flag_that_there_is_not_is_refused_with_the_help_to_read(name, monkeypatch):
    assert isinstance(importlib.import_module(name).main, command_line.Script)
    outcome = ending(name, ["--nonsense"], monkeypatch)
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("error: No such option")
    assert "--nonsense" in outcome.stderr
    assert outcome.stderr.endswith(f"\n  try: python benchmarks/{name}.py --help\n")


@pytest.mark.parametrize(
    ("name", "arguments", "code", "said"),
    [(name, *wrong) for name, wrongs in WRONG.items() for wrong in wrongs],
)
def test_a_wrong_argument_ends_in_a_line_before_anything_is_measured(
    name, arguments, code, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    outcome = ending(name, [*arguments, *NEEDED.get(name, ())], monkeypatch)
    assert isinstance(outcome.exception, SystemExit), outcome.exception
    assert outcome.exit_code == code
    first, second = outcome.stderr.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert second.startswith("  try: ")
    assert not any(tmp_path.iterdir())


def test_an_own_error_of_a_script_is_not_disguised():
    @command_line.script("Break.")
    def broken() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(broken, []).exception, ZeroDivisionError)


def test_lists_are_read_with_their_bounds():
    @command_line.script("Echo.")
    @click.option("--seeds", type=command_line.Numbers(0), default="0,1")
    @click.option("--names", type=command_line.Names(("a", "b"), may_be_empty=True), default="a,b")
    def echo(seeds, names) -> None:
        click.echo(f"{seeds} {names}")

    assert CliRunner().invoke(echo, []).output == "(0, 1) ('a', 'b')\n"
    assert CliRunner().invoke(echo, ["--seeds", "3", "--names", ""]).output == "(3,) ()\n"
    assert CliRunner().invoke(echo, ["--names", "a,c"]).exit_code == 2
