"""Coefficients refined on some prompts: what is gained, what it costs, and what is left of it after a kill."""

from dataclasses import replace

import pytest

import budc.compiler.selection.alignment as alignment_module
import budc.compiler.selection.judges as judges_module
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.candidate import candidate_of
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.sensitivity import forwards_of_normal_equations
from budc.compiler.selection import effort as efforts
from budc.compiler.selection.alignment import PRECONDITIONED_RATES
from budc.compiler.selection.arbitration import Arbiter
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.effort import FINALISTS, LEAST_REFINED, evaluations_of_refinement
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.refinement import Refiner
from budc.compiler.storage.journal import Journal
from budc.compiler.training.trainer import RATES, TrainingResult
from budc.schema.errors import JournalCorrupt

SHAPE = (16, 16)
"""Of latents. With few values, moves fit the prompts that they were measured on."""


@pytest.fixture
def find(tmp_path):
    """Find a policy in a folder by name: (result, records of the journal)."""

    def find(task, name="find"):
        with Journal(tmp_path / name, "find") as journal:
            finder = Finder(Calibration(task, journal))
            return finder.find(task), dict(journal.records)

    return find


def loss(toys, task, result):
    """The log loss on further prompts of a toy."""
    conditions = toys.conditions(40, task.denoiser.branches, SHAPE, seed=9)
    network = BatchedDenoiser(task.denoiser, conditions)
    form = task.schedule.linear_form()
    reference = rollout_policy(network, form, full_policy(form.steps, task.denoiser.branches))
    return objective("log-mean", latent_errors(rollout_policy(network, form, result.policy), reference))


@pytest.mark.parametrize(
    ("solver", "effort", "gain"),
    [("euler", "balanced", 0.1), ("euler", "thorough", 0.1), ("unipc", "balanced", 0.02)],
)
def test_a_refined_policy_loses_less_on_other_prompts(task, toys, find, monkeypatch, solver, effort, gain):
    wanted = task(12, 4, samples=24, shape=SHAPE, solver=solver, effort=effort)
    refined, _ = find(wanted, "refined")
    monkeypatch.setattr(efforts, "LEAST_REFINED", 100)
    plain, _ = find(wanted, "plain")
    assert refined.notes[-1].startswith("coefficients refined on")
    assert not any("refine" in note for note in plain.notes)
    assert refined.policy.branches[0].mask == plain.policy.branches[0].mask
    assert loss(toys, wanted, refined) < loss(toys, wanted, plain) - gain


@pytest.mark.parametrize("effort", ["balanced", "thorough"])
def test_every_forward_of_a_refinement_is_counted(task, find, effort):
    wanted = task(16, 4, samples=16, effort=effort)
    result, _ = find(wanted)
    assert result.forwards.total == sum(wanted.denoiser.calls)
    prompts = result.settings["refined"]
    judges = result.settings["judge"]
    measured = prompts * forwards_of_normal_equations(result.policy, wanted.denoiser.branches)
    assert measured >= prompts * evaluations_of_refinement(4)
    assert result.forwards.refinement == measured + 2 * 4 * (judges or result.settings["fit"])
    assert result.forwards.arbitration == 2 * 4 * judges * FINALISTS


def test_what_a_refinement_takes_is_known_where_every_interval_has_reused_steps():
    """Four evaluations: the rollout, one term after the first computed step, two after the second, three after it."""
    assert evaluations_of_refinement(4) == 4 + 1 * 3 + 2 * 2 + 3 * 1
    assert evaluations_of_refinement(1) == 1


@pytest.mark.parametrize(
    ("effort", "samples"), [("fast", 24), ("balanced", LEAST_REFINED - 1), ("thorough", 9)]
)
def test_of_few_prompts_and_with_the_smallest_effort_nothing_is_refined(task, find, effort, samples):
    """Of nine prompts seven are fitted."""
    result, records = find(task(8, 3, samples=samples, effort=effort))
    assert result.forwards.refinement == 0
    assert "refined" not in result.settings
    assert not any(key.startswith("refine") for key in records)


@pytest.mark.parametrize("fields", [{"search": "paper"}, {"rule": "plain"}])
def test_coefficients_that_were_not_fitted_are_not_refined(task, find, fields):
    result, _ = find(task(6, 2, samples=12, **fields))
    assert result.forwards.refinement == 0


@pytest.mark.parametrize("effort", ["balanced", "thorough"])
def test_it_is_kept_only_where_it_loses_less(task, find, monkeypatch, effort):
    measured = Arbiter.loss

    def worse(self, label, policy, form):
        return measured(self, label, policy, form) + 100 * label.endswith("refined")

    wanted = task(12, 4, samples=24, shape=SHAPE, effort=effort)
    kept, _ = find(wanted, "kept")
    monkeypatch.setattr(Arbiter, "loss", worse)
    left, _ = find(wanted, "left")
    assert "refinement gained nothing" in left.notes
    assert left.forwards.refinement == kept.forwards.refinement
    assert (left.forwards.refit > 0) == (effort == "thorough")
    assert left.policy != kept.policy


def test_the_judges_have_not_been_refined_on(task, find, monkeypatch):
    spans = []
    measure = Refiner.measure
    monkeypatch.setattr(
        Refiner, "measure", lambda self, policy, span: spans.append(span) or measure(self, policy, span)
    )
    result, _ = find(task(8, 3, samples=24))
    assert spans == [(0, 4), (4, 8), (8, 12), (12, 16)]
    assert result.settings["fit"] == 18


@pytest.mark.parametrize("killed_at", [1, 3])
def test_what_was_measured_before_a_kill_is_not_measured_again(task, find, monkeypatch, killed_at):
    wanted = task(8, 3, samples=24)
    whole, records = find(wanted, "whole")
    measure, calls = Refiner.measure, []

    def killed(self, policy, span):
        calls.append(span)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        return measure(self, policy, span)

    with monkeypatch.context() as patch:
        patch.setattr(Refiner, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            find(wanted, "killed")
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            Refiner, "measure", lambda self, policy, span: calls.append(span) or measure(self, policy, span)
        )
        resumed, again = find(wanted, "killed")
    assert len(calls) == 4 - killed_at
    assert resumed == whole
    assert again.keys() == records.keys()


def test_records_of_another_policy_are_refused(task, find, tmp_path):
    wanted = task(8, 3, samples=24)
    _, records = find(wanted)
    key = next(key for key in records if key.startswith("refine"))
    with Journal(tmp_path / "find", "find") as journal:
        journal.put(key, [{"curvature": [[1.0]], "slope": [1.0], "error": 1.0}] * 4)
    with pytest.raises(JournalCorrupt, match="does not fit this compile"):
        find(wanted)


def test_what_was_fitted_on_other_prompts_is_measured_anew(task, tmp_path):
    """A transfer fits a mask on all prompts; the search that may follow fits the same one on some of them."""
    wanted = task(8, 3, samples=24)
    with Journal(tmp_path / "find", "find") as journal:
        finder = Finder(Calibration(wanted, journal))
        result = finder.find(wanted)
        searched = {key for key in journal.records if key.startswith("refine")}
        candidate = candidate_of(result.policy, wanted.denoiser.branches)
        fit = finder.calibration.fitted(candidate)
        finder.refined(wanted, candidate, replace(result, policy=fit.policy, loss=fit.loss))
        assert len({key for key in journal.records if key.startswith("refine")} - searched) == 4


def test_workers_measure_in_place_of_this_process(task, tmp_path):
    """They finish in any order."""
    wanted = task(8, 3, samples=24)
    with Journal(tmp_path / "alone", "find") as journal:
        finder = Finder(Calibration(wanted, journal))
        result = finder.find(wanted)
        policy = finder.calibration.fitted(next(iter(result.trace)).candidate).policy
        alone = finder.calibration.refiner.refined("some", policy, 12)

    class Workers:
        def measure(self, policy, spans):
            for position in reversed(range(len(spans))):
                yield position, finder.calibration.refiner.measure(policy, spans[position])

    with Journal(tmp_path / "workers", "find") as journal:
        elsewhere = replace(finder.calibration.refiner, journal=journal, workers=Workers()).refined(
            "some", policy, 12
        )
    assert elsewhere == alone


def test_an_alignment_starts_from_the_refined_policy(task, find, monkeypatch):
    started = []

    def align(task, contender, *rest):
        started.append(contender)
        return contender, 0

    monkeypatch.setattr(judges_module, "align", align)
    result, _ = find(task(12, 4, samples=24, shape=SHAPE, align=True))
    (contender,) = started
    assert len(contender.equations) == 16
    assert result.policy == contender.result.policy
    assert result.notes[-2:] == (
        "coefficients refined on 16 prompts",
        "alignment gained nothing on other prompts",
    )


@pytest.mark.parametrize(("effort", "rates"), [("thorough", PRECONDITIONED_RATES), ("fast", RATES)])
def test_an_alignment_trains_in_the_units_of_a_refinement(task, find, monkeypatch, effort, rates):
    """Where there was none, each coefficient moves by itself."""
    trained = []

    def train(denoiser, parameters, training_set, validation, settings, journal, label):
        trained.append((parameters, settings, label))
        return TrainingResult({}, None, None, 0, 0)

    monkeypatch.setattr(alignment_module, "train", train)
    find(task(12, 4, samples=24, shape=SHAPE, align=True, effort=effort))
    ((parameters, settings, label),) = trained
    assert (parameters.preconditioner is not None) == (effort == "thorough")
    assert label.endswith(" refined") == (effort == "thorough")
    assert settings.rates == rates
