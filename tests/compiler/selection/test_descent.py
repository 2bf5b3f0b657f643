"""The steps of the best mask, moved by one on the prompts that all finalists were fitted on."""

import pytest

from budc.compiler.rollouts.metrics import objective
from budc.compiler.search import Candidate, Space
from budc.compiler.selection.descent import descend
from budc.compiler.selection.race import race
from budc.compiler.selection.scores import Scores
from budc.compiler.storage.journal import Journal
from budc.progress import progress


@pytest.fixture
def space(toys):
    return Space(steps=12, nfe=4, annealing=toys.defaults, branches=("cond", "uncond"))


def candidate(*steps):
    return Candidate.of(12, steps, "tracked", "velocity")


def scored(toy, journal, *candidates):
    """Return candidates with their losses, best first."""
    with progress("start", len(candidates)) as bar:
        scores = Scores("start", "log-mean", toy.forest(), journal, bar)
        scores.losses(candidates)
    return scores.ranking()


def test_late_steps_move_first_and_what_loses_less_is_kept(bench, space, journal):
    toy = bench(steps=12, samples=4)
    (best,) = scored(toy, journal, candidate(0, 5, 6, 7))
    better, spent = descend(space, best, "descent", "log-mean", toy.forest(), journal, forwards=10**6)
    tried = [key.removeprefix("descent ") for key in journal.records if key.startswith("descent ")]
    assert tried[0].startswith("0,5,6,8 ")
    assert better[0].loss == min(journal.records[f"descent {key}"]["loss"] for key in tried) < best.loss
    assert [one.loss for one in better] == sorted(one.loss for one in better)
    assert spent == sum(journal.records[f"descent {key}"]["forwards"] for key in tried)
    (alone,) = toy.tree().roll_out([better[0].candidate])
    assert better[0].loss == pytest.approx(objective("log-mean", alone.errors))


@pytest.mark.parametrize("forwards", [0, 15, 16, 40, 100])
def test_it_takes_no_more_forwards_than_are_left(bench, space, journal, forwards):
    """The last of four steps costs 4 prompts of two branches, and the first of the moved ones all that follow."""
    toy = bench(steps=12, samples=4)
    (best,) = scored(toy, journal, candidate(0, 3, 6, 9))
    forest = toy.forest()
    better, spent = descend(space, best, "descent", "log-mean", forest, journal, forwards)
    # The tree of this forest has not computed what the moves share with their start.
    assert spent == forest.trees[0].network.forwards <= forwards + 3 * 4 * 2
    assert (spent > 0) == (forwards >= 8)
    assert all(one.loss < best.loss for one in better)


def test_the_forwards_that_finalists_share_pay_for_the_moves(bench, space, tmp_path):
    toy = bench(steps=12, samples=4)
    finalists = [candidate(0, 3, 6, 9), candidate(0, 3, 6, 10), candidate(0, 3, 5, 9)]
    with Journal(tmp_path / "race", "race") as journal:
        raced = race("joint", space, finalists, "log-mean", toy.forest(), journal)
        names = [key.split(" of ")[0] for key in journal.records]
    assert names[:3] == ["race"] * 3
    assert {*names[3:]} == {"descent"}
    assert raced.forwards <= 3 * 4 * 2 * 4
    assert len(raced.ranking) == 3
    assert raced.ranking[0].candidate not in finalists
    assert raced.note.endswith("moved by one")
