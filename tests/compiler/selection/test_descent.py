"""The steps of the best mask, moved by one on the prompts that all finalists were fitted on."""

import pytest

from budc.compiler.rollouts.metrics import objective
from budc.compiler.search import Candidate, Space
from budc.compiler.search.moves import all_candidates
from budc.compiler.selection.descent import descend
from budc.compiler.selection.race import race
from budc.compiler.selection.scores import Scores
from budc.compiler.storage.journal import Journal
from budc.progress import progress


def space_of(toys, **fields):
    return Space(steps=12, nfe=4, annealing=toys.defaults, branches=("cond", "uncond"), **fields)


def candidate(*steps):
    return Candidate.of(12, steps, "tracked", "velocity")


def descended(space, forest, journal, start, forwards):
    """Return the scores after moves from a start within so many forwards beside its own."""
    with progress("moves", 9) as bar:
        scores = Scores("moves", "log-mean", forest, journal, bar)
        scores.losses([start])
        descend(space, scores.ranking()[0], scores, forest, scores.forwards + forwards)
    return scores


def test_late_steps_move_first_and_what_loses_less_is_kept(bench, toys, journal):
    toy, space, start = bench(steps=12, samples=4), space_of(toys), candidate(0, 5, 6, 7)
    scores = descended(space, toy.forest(), journal, start, 10**6)
    tried = [point.candidate.mask.compute_steps for point in scores.trace()]
    assert tried[:2] == [(0, 5, 6, 7), (0, 5, 6, 8)]
    best = scores.ranking()[0]
    assert best.loss == min(point.loss for point in scores.trace()) < scores.trace()[0].loss
    (alone,) = toy.tree().roll_out([best.candidate])
    assert best.loss == pytest.approx(objective("log-mean", alone.errors))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("forwards", [0, 3, 4, 8, 16, 40, 100, 250])
def test_it_takes_no_more_forwards_than_are_left(separate, forwards, bench, toys, tmp_path):
    """Of separate branches a move of one may change the state in which the other computes: both are paid."""
    toy, space = bench(steps=12, samples=4), space_of(toys, separate=separate)
    starts = list(all_candidates(space))[:: 500 if not separate else 30000][:4]
    for number, start in enumerate(starts):
        forest = toy.forest()
        with Journal(tmp_path / str(number), "moves") as journal:
            scores = descended(space, forest, journal, start, forwards)
        spent = scores.forwards - scores.trace()[0].forwards
        assert forest.trees[0].network.forwards == scores.forwards
        assert spent <= forwards
        assert spent > 0 or forwards < 8


def test_the_forwards_that_finalists_share_pay_for_the_moves(bench, toys, tmp_path):
    toy = bench(steps=12, samples=4)
    finalists = [candidate(0, 3, 6, 9), candidate(0, 3, 6, 10), candidate(0, 3, 5, 9)]
    with Journal(tmp_path / "race", "race") as journal:
        raced = race("joint", space_of(toys), finalists, "log-mean", toy.forest(), journal)
        assert len(journal.records) > 3
    assert raced.forwards <= 3 * 4 * 2 * 4
    assert len(raced.ranking) == 3
    assert raced.ranking[0].candidate not in finalists
    assert raced.note.endswith("moved by one")


def test_finalists_that_share_nothing_leave_nothing_for_moves(bench, toys, tmp_path):
    toy = bench(steps=12, samples=4)
    finalists = [candidate(0, 3, 6, 9)]
    with Journal(tmp_path / "race", "race") as journal:
        raced = race("joint", space_of(toys), finalists, "log-mean", toy.forest(), journal)
    assert [scored.candidate for scored in raced.ranking] == finalists
    assert raced.note == "finalist 1 of 1 by a race on 4 prompts"
