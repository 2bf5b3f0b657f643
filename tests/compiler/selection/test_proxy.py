"""Masks of a proxy, and the short search that starts from them."""

from dataclasses import replace

import pytest

from budc.compiler.search import Candidate
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.effort import PROXY_MASKS
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.proxy import ProxySearch, after_proxy, with_proxy
from budc.compiler.selection.trace import TracePoint
from budc.compiler.storage.journal import Journal


@pytest.fixture
def found(task, tmp_path):
    """The masks of a search on smaller samples, with what would be trained and judged at the real size."""
    smaller = task(10, 3, effort="fast", align=True, shape=(1, 2))
    with Journal(tmp_path / "proxy", "proxy") as journal:
        return ProxySearch(smaller, journal).find(smaller), list(journal.records)


def test_the_proxy_ranks_masks_and_does_nothing_else(found):
    masks, records = found
    assert len(masks.masks) == len(set(masks.masks)) == PROXY_MASKS
    assert all(len(mask) == 3 and mask[0] == 0 for mask in masks.masks)
    assert not any(word in key for key in records for word in ("race", "align", "arbitration"))


def test_a_short_search_starts_from_its_masks(found, task, tmp_path):
    masks, _ = found
    wanted = task(10, 3, effort="fast", published_masks=((0, 1, 2),))
    with Journal(tmp_path / "real", "real") as journal:
        finder = Finder(Calibration(wanted, journal))
        alone = finder.find(wanted)
        after = finder.find(after_proxy(wanted, masks))
    tried = [point.candidate.mask.compute_steps for point in after.trace]
    assert set(masks.masks) <= set(tried)
    assert len(tried) < len(alone.trace)
    result = with_proxy(after, masks)
    assert result.candidates == len(tried) + masks.candidates
    assert (result.forwards.proxy, result.forwards.total) == (masks.forwards, after.forwards.total)


def test_masks_are_ranked_as_a_search_ranks_its_finalists(task, tmp_path, monkeypatch):
    """Of two payloads that lose alike, the velocity's masks come first."""
    wanted = task(10, 3, effort="fast")
    with Journal(tmp_path / "ranked", "ranked") as journal:
        search = ProxySearch(wanted, journal)
        result = search._finder.find(wanted)
        trunk, velocity = (
            TracePoint(Candidate.of(10, steps, "tracked", payload), loss, 1)
            for steps, payload, loss in (((0, 1, 2), "trunk-residual", -3.1), ((0, 4, 8), "velocity", -3.0))
        )
        changed = replace(result, trace=(trunk, velocity))
        monkeypatch.setattr(Finder, "find", lambda *_: changed)
        assert search.find(wanted).masks == ((0, 4, 8), (0, 1, 2))
