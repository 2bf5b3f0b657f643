"""How many prompts each stage is given, and the race of finalists on more prompts than the screen saw."""

import math
from pathlib import Path

import pytest
import torch

from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.search import Candidate, Space
from budc.compiler.selection import effort as efforts
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.effort import EFFORTS, Effort, PerBudget, effort, epochs
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.race import race
from budc.compiler.selection.stages import Stages, stages_of
from budc.compiler.storage.journal import Journal
from budc.schema.errors import CompileError, UsageError


@pytest.fixture
def small(monkeypatch):
    """An effort of few prompts: 3 to screen, 4 to fit, 2 to judge; more at six evaluations and above."""
    given = Effort(
        screen=PerBudget({5: 3, 6: 4}),
        fit=PerBudget({5: 4, 6: 5}),
        judge=2,
        finalists=3,
        rollouts=PerBudget({1: 0.4}),
        pairings=2,
        epochs=PerBudget({1: 1}),
    )
    monkeypatch.setattr(efforts, "EFFORTS", EFFORTS | {"small": given})
    return "small"


@pytest.fixture
def find(tmp_path):
    def find(task):
        with Journal(tmp_path / f"find {task.align}", "find") as journal:
            finder = Finder(Calibration(task, journal))
            return finder, finder.find(task), dict(journal.records)

    return find


def test_an_effort_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="--effort: no effort named 'heroic'") as caught:
        effort("heroic")
    assert all(name in caught.value.remedy for name in EFFORTS)


def test_efforts_are_in_order():
    fast, balanced, thorough = EFFORTS.values()
    assert list(EFFORTS) == ["fast", "balanced", "thorough"]
    for field in ("judge", "report"):
        assert getattr(fast, field) <= getattr(balanced, field)
    for nfe in range(1, 50):
        assert 0 < fast.share(nfe) <= balanced.share(nfe) + 0.01 <= 1
        assert balanced.share(nfe) == thorough.share(nfe)
        assert 0 == fast.refine.at(nfe) < balanced.refine.at(nfe) <= thorough.refine.at(nfe)
        assert fast.screen.at(nfe) <= balanced.screen.at(nfe) <= balanced.fit.at(nfe)
        assert fast.screen.at(nfe) <= fast.fit.at(nfe) <= balanced.fit.at(nfe)
    assert [epochs(10, given) for given in EFFORTS.values()] == [2, 2, 3]


@pytest.mark.parametrize("prompts", [3, 4, 5, 8, 11, 24, 32, 500])
@pytest.mark.parametrize("arbitrates", [False, True])
@pytest.mark.parametrize("name", EFFORTS)
@pytest.mark.parametrize("nfe", [2, 10, 40])
def test_stages_fit_into_the_prompts_that_are_given(name, arbitrates, prompts, nfe):
    stages = stages_of("joint", name, nfe, prompts, arbitrates=arbitrates)
    assert 1 <= stages.screen <= stages.fit
    assert stages.total <= prompts
    assert stages.judge >= arbitrates
    assert stages.screen <= stages_of("joint", "thorough", nfe, prompts, arbitrates=arbitrates).screen
    chosen = stages.chosen(prompts)
    assert len(set(chosen)) == len(chosen) == stages.total


def test_thorough_is_given_all_prompts():
    stages = stages_of("joint", "thorough", 8, 32, arbitrates=False)
    assert stages == Stages(8, 24, 8)
    assert sorted(stages.chosen(32)) == list(range(32))
    assert stages.of("dp") == stages_of("dp", "thorough", 8, 32, arbitrates=False) == Stages(24, 24, 8)
    assert stages.of("dp").chosen(32) == list(range(32))


@pytest.mark.parametrize("nfe", [2, 6, 8, 10, 14, 30])
def test_thorough_has_one_group_where_prompts_are_too_few_for_two(nfe):
    """So few prompts fit a mask to themselves, whichever group they are in."""
    for prompts in range(3, 80):
        stages = stages_of("joint", "thorough", nfe, prompts, arbitrates=False)
        assert stages.groups == 1 or stages.screen == EFFORTS["thorough"].screen.at(nfe)
        assert (stages.groups == 1) == (stages.fit < 2 * EFFORTS["thorough"].screen.at(nfe))


def test_a_larger_budget_is_given_more_prompts():
    given = PerBudget({6: 4, 10: 6, 14: 7})
    assert [given.at(nfe) for nfe in (2, 6, 8, 10, 13, 14, 50)] == [4, 4, 5, 6, 7, 7, 7]
    assert given.exactly(7) == 4.5
    assert PerBudget({1: 3}).at(20) == 3
    for name in ("fast", "balanced"):
        stages = [stages_of("joint", name, nfe, 32, arbitrates=False) for nfe in range(2, 30)]
        assert stages == sorted(stages)
        assert stages[0] < stages[-1]


def test_a_task_is_given_the_prompts_of_its_budget(task, small, tmp_path):
    for nfe, stages in ((3, Stages(3, 4, 0)), (6, Stages(4, 5, 0))):
        with Journal(tmp_path / str(nfe), "find") as journal:
            finder = Finder(Calibration(task(8, nfe, samples=12, effort=small), journal))
        assert finder.calibration.stages == stages
        assert finder.calibration.reference_forwards == 2 * 8 * stages.total


def test_some_prompts_are_spread_over_the_list_and_stay_where_more_are_taken():
    few, more = Stages(6, 8, 0).chosen(24), Stages(8, 16, 0).chosen(24)
    assert more[: len(few)] == few
    gaps = [after - before for before, after in zip([0, *sorted(few)], [*sorted(few), 24], strict=True)]
    assert max(gaps) <= 2 * 24 / len(few)


@pytest.mark.parametrize("name", ["fast", "balanced"])
def test_the_smaller_efforts_have_two_groups_wherever_there_are_six_prompts(name):
    for nfe in range(1, 31):
        for prompts in range(1, 41):
            stages = stages_of("joint", name, nfe, prompts, arbitrates=False)
            assert stages.groups == 1 + (prompts >= 6)
            assert stages.of("dp") == stages_of("dp", name, nfe, prompts, arbitrates=False)
            assert stages.of("dp").groups == 1


@pytest.mark.parametrize("search", ["paper", "uniform"])
def test_a_reference_search_is_given_all_prompts_whatever_the_effort(search):
    assert stages_of(search, "fast", 8, 32, arbitrates=False) == Stages(32, 32, 0)


@pytest.mark.parametrize("align", [False, True])
def test_every_forward_of_every_stage_is_counted(task, find, small, align):
    wanted = task(8, 3, samples=12, effort=small, align=align)
    finder, outcome, _ = find(wanted)
    forwards, stages = outcome.forwards, finder.calibration.stages
    assert stages == Stages(3, 4, 2 * align)
    # A backward counts as two forwards; of these the denoiser sees one, which computes the step again.
    trained = 3 * 2 * 4 * 2
    assert forwards.total - trained * align == sum(wanted.denoiser.calls)
    assert forwards.reference == 2 * 8 * stages.total
    assert 0 < forwards.race <= 3 * 3 * 2 * stages.fit
    assert dict(outcome.settings) | {"effort": small, "screen": 3, "fit": 4, "judge": 2 * align} == dict(
        outcome.settings
    )


def test_the_policy_is_fitted_on_all_prompts_of_the_race(task, find, small):
    finder, outcome, _ = find(task(8, 3, samples=12, effort=small))
    network = finder.calibration.batched(finder.calibration.conditions)
    errors = latent_errors(
        rollout_policy(network, finder.calibration.form, outcome.policy), finder.calibration.run.latents
    )
    assert len(errors) == 4
    assert outcome.loss == pytest.approx(objective("log-mean", errors), abs=1e-4)


def test_the_race_is_won_on_prompts_that_the_screen_has_not_seen(task, find, small):
    """The screen's order is by three prompts, the race's by four; all racers are finalists of the screen."""
    finder, outcome, records = find(task(10, 4, samples=12, effort=small))
    screened = {
        key.removeprefix("joint "): entry["loss"]
        for key, entry in records.items()
        if key.startswith("joint ")
    }
    raced = {
        key.removeprefix("race of joint on 4 "): entry["loss"]
        for key, entry in records.items()
        if key.startswith("race ")
    }
    finalists = sorted(screened, key=screened.get)[:3]
    assert list(raced)[:3] == finalists
    assert outcome.loss == min(raced.values())
    place = finalists.index(min(finalists, key=raced.get)) + 1
    assert outcome.notes[0].startswith(f"finalist {place} of 3 by a race on 4 prompts")
    assert torch.equal(
        finder.calibration.conditions.noise,
        finder.task.conditions.noise[finder.calibration.stages.chosen(12)],
    )


def test_finalists_of_several_groups_race_on_all_their_prompts(task, find, monkeypatch):
    grouped = Effort(
        screen=PerBudget({1: 3}), fit=PerBudget({1: 7}), judge=1, finalists=2, rollouts=PerBudget({1: 0.5})
    )
    monkeypatch.setattr(efforts, "EFFORTS", EFFORTS | {"grouped": grouped})
    finder, outcome, records = find(task(10, 4, samples=12, effort="grouped"))
    assert finder.calibration.stages == Stages(3, 7, 0)
    assert finder.calibration.stages.spans == ((0, 3), (3, 6))
    searched = [key.removeprefix("joint ") for key in records if key.startswith("joint ")]
    assert {key.partition(" on group ")[2] for key in searched} == {"", "1"}
    raced = [key.removeprefix("race of joint on 7 ") for key in records if key.startswith("race ")]
    assert len(set(raced)) == len(raced) >= 2
    assert {*raced[:2]} <= {key.partition(" on group ")[0] for key in searched}
    # Full runs of 7 samples; a record of a search has the forwards of 3, one of the race those of 7.
    denoiser = finder.task.denoiser
    assert outcome.forwards.total == sum(denoiser.calls)
    assert outcome.forwards.search == sum(records[f"joint {key}"]["forwards"] for key in searched)
    assert dict(outcome.settings)["groups"] == 2


def test_a_race_in_which_nothing_is_finite_is_an_error(bench, toys, journal, monkeypatch):
    toy = bench(steps=6)
    forest = toy.forest()
    (tree,) = forest.trees
    rolled_out = tree.rolled_out

    def broken(candidates, costs):
        return [
            type(rollout)((math.nan,), rollout.rows, rollout.forwards)
            for rollout in rolled_out(candidates, costs)
        ]

    monkeypatch.setattr(tree, "rolled_out", broken)
    space = Space(steps=6, nfe=2, annealing=toys.defaults, branches=("cond", "uncond"))
    candidate = Candidate.of(6, (0, 2), "tracked", "velocity")
    with pytest.raises(CompileError, match="none of 1 finalists"):
        race("joint", space, [candidate], "log-mean", forest, journal)


@pytest.mark.parametrize("records", [1, 4])
def test_a_killed_race_goes_on(task, small, tmp_path, monkeypatch, records):
    """The first three records are those of finalists, the others of moves of the best."""
    wanted = task(8, 3, samples=12, effort=small)
    with Journal(tmp_path / "undisturbed", "find") as journal:
        expected = Finder(Calibration(wanted, journal)).find(wanted)
    put = Journal.put

    def stopping(self, key, value):
        put(self, key, value)
        if sum(name.startswith("race") for name in self.records) == records:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", stopping)
    with Journal(tmp_path / "killed", "find") as journal, pytest.raises(KeyboardInterrupt):
        Finder(Calibration(wanted, journal)).find(wanted)
    monkeypatch.setattr(Journal, "put", put)
    with Journal(tmp_path / "killed", "find") as journal:
        assert Finder(Calibration(wanted, journal)).find(wanted) == expected


def test_judges_choose_from_what_raced_or_from_the_best_of_the_search():
    given = Effort(screen=PerBudget({1: 3}), finalists=2)
    assert (Stages(3, 7, 2).races, Stages(3, 7, 2).finalists(given)) == (True, 2)
    assert (Stages(7, 7, 2).races, Stages(7, 7, 2).finalists(given)) == (False, 4)


@pytest.mark.parametrize("name", EFFORTS)
def test_the_guides_say_what_an_effort_is(name):
    given = EFFORTS[name]

    def numbers(of):
        at = [str(of.at(nfe)) for nfe in (6, 8, 10, 14)]
        return " / ".join(at) if len(set(at)) > 1 else at[0] if at[0] != "0" else "none"

    title = "`thorough`, the default" if name == "thorough" else f"`{name}`"
    fit = "three quarters of all" if given.fit is None else numbers(given.fit)
    rollouts = " / ".join(f"{given.share(nfe):g}" for nfe in (6, 8, 10, 14))
    report = "all" if given.report is None else f"at most {given.report}"
    cells = (title, numbers(given.screen), rollouts, fit, given.finalists, numbers(given.refine), report)
    row = "| " + " | ".join(map(str, cells)) + " |"
    docs = Path(__file__).parents[3] / "docs"
    assert row in (docs / "compile.md").read_text(encoding="utf-8")
    if given.fit is not None:
        tutorial = (docs / "tutorials" / "network.md").read_text(encoding="utf-8")
        assert f"{given.fit.at(6)} to {given.fit.at(14)}" in tutorial
