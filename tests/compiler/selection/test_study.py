"""The loop between a search and the rollouts that score it."""

import math

import pytest

from budc.compiler.rollouts.forest import Forest
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.tree import Rollout
from budc.compiler.search import Candidate, Space
from budc.compiler.selection.effort import FINALISTS
from budc.compiler.selection.scores import Record, Scores, policy_of
from budc.compiler.selection.study import search
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.schema.errors import CompileError, UsageError
from budc.schema.mask import StepMask


@pytest.fixture
def space(toys):
    def space(steps=6, nfe=2, **fields):
        return Space(steps=steps, nfe=nfe, annealing=toys.defaults, branches=("cond", "uncond"), **fields)

    return space


def test_the_reference_search_scores_every_mask_once_and_finds_the_best(bench, space, journal):
    toy = bench(steps=6)
    study = search("paper", space(), toy.forest(), journal, seed=0)
    # Two computed steps of six, the first of them fixed: five masks.
    assert set(journal.records) == {f"paper 0,{step}" for step in range(1, 6)}
    assert study.candidates == 5
    losses = {key: record["loss"] for key, record in journal.records.items()}
    assert [scored.loss for scored in study.finalists] == sorted(losses.values())[:FINALISTS]
    for scored in study.finalists:
        assert scored.loss == losses[f"paper {scored.candidate.key}"]
        errors = latent_errors(rollout_policy(toy.over(), toy.form, scored.policy), toy.run.latents)
        assert scored.loss == pytest.approx(sum(errors) / len(errors), rel=1e-6)
    # Five second evaluations, and one first that all share; two branches, five prompts.
    assert study.forwards == (5 + 1) * 2 * 5


def test_losses_of_the_default_search_are_geometric_means(bench, space, journal):
    toy = bench(steps=6)
    study = search("joint", space(), toy.forest(), journal, seed=0)
    best = study.finalists[0]
    assert best.candidate.rule == "tracked"
    assert best.policy.payload == best.candidate.payload
    errors = latent_errors(rollout_policy(toy.over(), toy.form, best.policy), toy.run.latents)
    assert best.loss == pytest.approx(sum(math.log(error) for error in errors) / len(errors), abs=1e-5)
    assert best.loss == min(record["loss"] for record in journal.records.values())


def test_the_objective():
    assert objective("mean", [1.0, 3.0]) == 2.0
    assert objective("log-mean", [1.0, math.e**2]) == pytest.approx(1.0)
    assert math.isfinite(objective("log-mean", [0.0]))
    for kind in ("mean", "log-mean"):
        assert objective(kind, [1.0, math.nan]) == math.inf
        assert objective(kind, [math.inf, 1.0]) == math.inf


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize(
    ("name", "groups", "batch"),
    [
        ("joint", 1, 1),
        ("joint", 2, 1),
        ("joint", 2, 3),
        pytest.param("anneal", 1, 1, marks=pytest.mark.slow),
        ("paper", 1, 1),
    ],
)
def test_a_search_killed_after_any_record_ends_the_same(
    bench, space, tmp_path, monkeypatch, name, groups, batch
):
    """Of a batch, records are written group by group: whatever is missing is rolled out again."""
    toy = bench(steps=7, samples=4)
    wanted = space(7, 3, groups=groups, batch=batch, prompts=4 // groups)
    with Journal(tmp_path / "undisturbed", "print") as journal:
        expected = search(name, wanted, toy.forest(groups), journal, seed=3)
    written = (tmp_path / "undisturbed" / "journal.jsonl").read_bytes()
    count = written.count(b"\n") - 1
    put = Journal.put
    for stop in range(1, count, max(1, count // 4)):

        def stopping(self, key, value, stop=stop):
            put(self, key, value)
            if len(self.records) == stop:
                raise KeyboardInterrupt

        monkeypatch.setattr(Journal, "put", stopping)
        with Journal(tmp_path / f"killed {stop}", "print") as journal, pytest.raises(KeyboardInterrupt):
            search(name, wanted, toy.forest(groups), journal, seed=3)
        monkeypatch.setattr(Journal, "put", put)
        with Journal(tmp_path / f"killed {stop}", "print") as journal:
            assert len(journal.records) == stop
            assert search(name, wanted, toy.forest(groups), journal, seed=3) == expected
        again = (tmp_path / f"killed {stop}" / "journal.jsonl").read_bytes()
        assert again == written if batch == 1 else sorted(again.split(b"\n")) == sorted(written.split(b"\n"))


def test_what_is_in_the_journal_is_not_rolled_out_again(bench, space, journal, monkeypatch):
    toy = bench(steps=6)
    study = search("joint", space(), toy.forest(), journal, seed=0)
    rolled = []
    monkeypatch.setattr(
        Forest, "rollouts", lambda self, candidates, costs: rolled.extend(candidates) or iter(())
    )
    assert search("joint", space(), toy.forest(), journal, seed=0) == study
    assert rolled == []


def broken(self, candidates, costs):
    rows = tuple({} if step in (0, 3) else {"cond": (1.0,), "uncond": (1.0,)} for step in range(6))
    return iter([(position, Rollout((math.nan, 1.0), rows, 1)) for position in range(len(candidates))])


def test_latents_that_are_not_finite_are_an_error_that_names_the_candidate(
    bench, space, journal, monkeypatch
):
    monkeypatch.setattr(Forest, "rollouts", broken)
    with pytest.raises(CompileError, match=r"candidate 0,\d:"):
        search("paper", space(), bench(steps=6).forest(), journal, seed=0)
    assert not journal.records


def test_a_fit_that_ran_away_loses_and_is_no_error(bench, space, journal, monkeypatch):
    rollouts = Forest.rollouts

    def partly(self, candidates, costs):
        for position, (candidate, cost) in enumerate(zip(candidates, costs, strict=True)):
            roll_out = broken if candidate.payload == "trunk-residual" else rollouts
            yield position, next(roll_out(self, [candidate], [cost]))[1]

    monkeypatch.setattr(Forest, "rollouts", partly)
    study = search("dp", space(errors=flat(6)), bench(steps=6).forest(), journal, seed=0)
    assert [scored.candidate.payload for scored in study.finalists] == ["velocity"]
    assert study.candidates == 2


def test_a_search_in_which_nothing_is_finite_is_an_error(bench, space, journal, monkeypatch):
    monkeypatch.setattr(Forest, "rollouts", broken)
    with pytest.raises(CompileError, match="none of 2 candidates"):
        search("dp", space(errors=flat(6)), bench(steps=6).forest(), journal, seed=0)


def flat(steps):
    return {name: [[[1.0] * steps] * steps] * steps for name in ("trunk-residual", "velocity")}


def test_an_unknown_search_is_refused(bench, space, journal):
    with pytest.raises(UsageError, match="genetic"):
        search("genetic", space(), bench(steps=6).forest(), journal, seed=0)


def test_branches_that_agree_share_an_entry(bench):
    tree = bench(steps=3).tree()
    mask = StepMask.from_compute_steps(3, (0, 1))
    together = [{}, {}, {"cond": (1.0, 0.5), "uncond": (1.0, 0.5)}]
    apart = [{}, {}, {"cond": (1.0, 0.5), "uncond": (1.0,)}]
    candidate = Candidate((mask,), "tracked", "velocity")
    assert [branch.names for branch in policy_of(tree, candidate, together).branches] == [["cond", "uncond"]]
    branches = policy_of(tree, candidate, apart).branches
    assert [branch.names for branch in branches] == [["cond"], ["uncond"]]
    assert [branch.predictor for branch in branches] == [[[], [], [1.0, 0.5]], [[], [], [1.0]]]
    assert policy_of(tree, candidate, apart).payload == "velocity"


def test_a_batch_of_which_a_later_candidate_is_known_costs_what_it_did(bench, journal, tmp_path):
    toy = bench(steps=6)
    batch = [Candidate.of(6, (0, 2, 4)), Candidate.of(6, (0, 2, 5)), Candidate.of(6, (0, 3, 4))]

    def costs(journal):
        with progress("batch", 3) as bar:
            scores = Scores("joint", "log-mean", toy.forest(), journal, bar)
            losses = scores.losses(batch)
        return losses, [point.forwards for point in scores.trace()]

    whole = costs(journal)
    with Journal(tmp_path / "killed", "print") as killed:
        for candidate in batch[1:]:
            killed.put(f"joint {candidate.key}", journal.records[f"joint {candidate.key}"])
        assert costs(killed) == whole


def test_a_payload_that_did_not_lead_clearly_is_no_finalist_before_the_other(bench, journal):
    """On five prompts a trunk residual must lead by one; the search had turned it down, and so must the ranking."""
    forest = bench(steps=6, samples=5).forest()
    mask, other = StepMask.from_compute_steps(6, (0, 2, 4)), StepMask.from_compute_steps(6, (0, 3, 4))
    behind, ahead = (Candidate((of,), "tracked", "velocity") for of in (mask, other))
    doubtful, clear = (Candidate((of,), "tracked", "trunk-residual") for of in (mask, other))
    rows = tuple({} if step in (0, 2, 4) else {"cond": (1.0,), "uncond": (1.0,)} for step in range(6))

    def ranked(losses):
        with progress("ranking", 4) as bar:
            scores = Scores("joint", "log-mean", forest, journal, bar)
            scores.known = {c.key: (c, Record(loss, rows, 1)) for c, loss in losses.items()}
            return [scored.candidate for scored in scores.ranking()]

    assert ranked({doubtful: -3.9, ahead: -3.0, behind: -2.0})[:2] == [ahead, doubtful]
    assert ranked({clear: -4.1, ahead: -3.0, behind: -2.0}) == [clear, ahead, behind]
