"""Calibration prompts: a policy of another network is compared with what they are fitted to."""

import math

import pytest

from budc.compiler.search import Candidate
from budc.compiler.selection.calibration import Calibration, Fit
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.task import SearchResult
from budc.compiler.storage.journal import Journal
from budc.schema.policy import Policy


@pytest.mark.parametrize("fitted", [5.0, math.inf, None])
def test_a_policy_keeps_its_coefficients_where_fitted_ones_lose_more(task, tmp_path, monkeypatch, fitted):
    """Those of a search are better than the same with a half added; None: fitted ones as they are."""
    wanted = task(8, 3, samples=8)
    with Journal(tmp_path / "source", "find") as journal:
        good = Finder(Calibration(wanted, journal)).find(wanted).policy
    rows = {
        name: [tuple(value + 0.5 for value in row) for row in entry.predictor]
        for entry in good.branches
        for name in entry.names
    }
    poor = Policy.of(good.payload, rows)
    if fitted is not None:
        monkeypatch.setattr(Calibration, "fitted", lambda self, candidate: Fit(poor, fitted, 7))
    given = poor if fitted is None else good
    with Journal(tmp_path / "transfer", "transfer") as journal:
        calibration = Calibration(wanted, journal)
        fit = calibration.refitted(given)
        everyone = calibration.everyone()
        assert (fit.policy is given) == (fitted is not None)
        assert fit.loss == pytest.approx(everyone.loss("result", fit.policy, calibration.form), abs=1e-4)
        assert fit.loss < everyone.loss("poor", poor, calibration.form)
    assert fit.forwards == 2 * 3 * 8 + (2 * 3 * 8 if fitted is None else 7)


def test_policies_that_share_a_journal_are_compared_each_by_itself(task, tmp_path):
    """Those of a sweep do at a further size; a transfer and the native search beside it do."""
    wanted = task(12, 4, samples=16, effort="balanced", shape=(16, 16))
    with Journal(tmp_path / "source", "find") as journal:
        finder = Finder(Calibration(wanted, journal))
        first, second = (
            finder.calibration.fitted(Candidate.of(12, steps, "tracked")).policy
            for steps in ((0, 3, 6, 9), (0, 1, 2, 3))
        )
    with Journal(tmp_path / "shared", "transfer") as journal:
        calibration = Calibration(wanted, journal)
        losses = [calibration.refitted(policy).loss for policy in (first, second)]
        assert losses[0] < losses[1]
        finder = Finder(Calibration(wanted, journal))
        note = "its own coefficients, which lose less on 11 prompts than fitted ones"
        assert finder.transferred(first).notes[0] == note
        fitted = SearchResult(first, wanted.schedule, losses[0])
        finder.refined(wanted, Candidate.of(12, (0, 3, 6, 9), "tracked", first.payload), fitted)
        refined = {key.rsplit(" on ", 1)[0] for key in journal.records if key.startswith("refine ")}
    assert len(refined) == 2
