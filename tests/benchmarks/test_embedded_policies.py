"""How the policies in the package are made: signing is all or nothing, and a part made anew is like the shipped one."""

import contextlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from budc.compiler.evaluation.reference import prompt_set
from budc.compiler.models.binding import model_binding
from budc.compiler.search.joint import rollout_limit
from budc.compiler.selection.effort import DEFAULT_EFFORT, effort
from budc.compiler.selection.stages import stages_of
from budc.policies import embedded_policies as package
from budc.policies.embedded_policies import embedded_policies, embedded_policy
from budc.policies.profile import embedded_folder, load_profile
from budc.policies.prompt_sets import read_samples
from budc.schema.artifact import read
from budc.schema.errors import BudcError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "embedded_policies.py"
spec = importlib.util.spec_from_file_location("embedded_policies_benchmark", SCRIPT)
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)

ENTRIES = embedded_policies()
TOLERANCE = 1.25
"""By how much the error of a policy made anew may exceed the shipped one's: rounding differs between machines, and with
it the masks that a search tries."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the package's policies."""
    target = tmp_path / "policies"
    shutil.copytree(package.FOLDER, target)
    monkeypatch.setattr(package, "FOLDER", target)
    return target


def believed():
    """Return how many of the listed policies are believed."""
    count = 0
    for entry in embedded_policies():
        with contextlib.suppress(BudcError):
            count += bool(embedded_policy(entry.model, entry.nfe))
    return count


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path.name)
def test_what_needs_no_search_is_what_a_compile_would_write_today(entry):
    document, profile = embedded_policy(entry.model, entry.nfe).document, load_profile(entry.model)
    samples = read_samples(profile)
    assert document.model == model_binding(profile, embedded_folder(profile))
    assert document.quality.held_out == prompt_set(samples.held_out)
    settings = document.search.settings
    assert settings["effort"] == DEFAULT_EFFORT
    given = effort(DEFAULT_EFFORT)
    assert settings["allowance"] == rollout_limit(document.sampler.steps, entry.nfe, given.share(entry.nfe))
    # All budgets of a model are compiled together, and share the stages of the largest.
    largest = max(benchmark.BUDGETS)
    stages = stages_of("joint", DEFAULT_EFFORT, largest, len(samples.calibration), arbitrates=True)
    assert {name: settings[name] for name in stages._fields} == stages._asdict()


def test_signing_anew_changes_key_and_signatures_and_no_policy(folder):
    policies = [read(entry.path) for entry in ENTRIES]
    key = (folder / package.KEY).read_bytes()
    benchmark.sign(policies, folder)
    assert (folder / package.KEY).read_bytes() != key
    assert believed() == len(ENTRIES)
    assert [embedded_policy(entry.model, entry.nfe).payload for entry in ENTRIES] == [
        policy.payload for policy in policies
    ]


@pytest.mark.parametrize("written", range(len(ENTRIES) + 2))
def test_a_kill_while_signing_leaves_nothing_that_is_wrongly_believed(folder, monkeypatch, written):
    policies = [read(entry.path) for entry in ENTRIES]
    calls = iter(range(written))
    write = benchmark.write_atomic

    def killed(path, data):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(benchmark, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        benchmark.sign(policies, folder)
    # Files that were written are not yet in the list; with another key, those that are not yet written are not believed.
    assert believed() == (len(ENTRIES) - written if written <= len(ENTRIES) else 0)
    monkeypatch.undo()
    monkeypatch.setattr(package, "FOLDER", folder)
    benchmark.sign(policies, folder)
    assert believed() == len(ENTRIES)


def test_what_is_there_is_not_compiled_again(folder, monkeypatch):
    monkeypatch.setattr(benchmark, "compile_artifacts", lambda plan: pytest.fail("compiled"))
    (made,) = benchmark.compile_missing("flux-nano", ["6"], folder)
    assert made.document.name == "flux-nano-nfe6"


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--budgets", "6"], "takes all policies at once"), (["--models", "wan"], "wan is none of flux-nano")],
)
def test_a_part_does_not_replace_what_is_in_the_package(folder, flags, message, tmp_path):
    before = believed()
    outcome = CliRunner().invoke(benchmark.main, [*flags, "--work", str(tmp_path / "work")])
    assert outcome.exit_code == 2
    assert message in " ".join(outcome.output.split())
    assert believed() == before
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_one_made_anew_is_as_good_as_the_shipped_one(tmp_path):
    command = [sys.executable, SCRIPT, "--models", "flux-nano", "--budgets", "6"]
    command += ["--work", tmp_path / "work", "--into", tmp_path / "made"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = read(tmp_path / "made" / "flux-nano-nfe6.budc.json").document
    shipped = embedded_policy("flux-nano", 6).document
    for part in ("name", "model", "shape", "budget"):
        assert getattr(made, part) == getattr(shipped, part)
    assert made.quality.held_out == shipped.quality.held_out
    errors = [
        next(m.geometric_mean for m in each.quality.metrics if m.name == "latent-mse")
        for each in (made, shipped)
    ]
    assert errors[0] <= TOLERANCE * errors[1]


@pytest.mark.slow
@pytest.mark.parametrize("model", benchmark.MODELS)
def test_the_shipped_report_can_be_measured_again(model):
    entry = embedded_policies(model)[0]
    command = [sys.executable, "-m", "budc", "verify", entry.path, "--trust", package.FOLDER / package.KEY]
    command += ["--weights", embedded_folder(load_profile(model)), "--replay"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "latent-mse mean" in done.stdout
