import itertools
import math
import random
import sys

import pytest

from budc.compiler.search import ALGORITHMS
from budc.compiler.search.exhaustive import BATCH, LIMIT
from budc.schema.errors import UsageError


def test_every_mask_is_proposed_once_with_every_payload_in_order(run, space):
    _, seen = run("exhaustive", space(9, 4), lambda _: 1.0)
    masks = [(0, *rest) for rest in itertools.combinations(range(1, 9), 3)]
    assert masks == sorted(masks)
    assert [(candidate.payload, candidate.mask.compute_steps) for candidate in seen] == [
        (payload, mask) for payload in ("trunk-residual", "velocity") for mask in masks
    ]


def test_the_best_of_all_wins(run, space):
    def loss(candidate):
        return random.Random(candidate.key).random()

    winner, seen = run("exhaustive", space(9, 4), loss)
    assert winner == min(seen, key=loss)


def test_batches_are_of_moderate_size(space):
    proposals = ALGORITHMS["exhaustive"].propose(space(12, 4), random.Random(0))
    sizes = []
    batch = next(proposals)
    while batch:
        sizes.append(len(batch))
        try:
            batch = proposals.send([1.0] * len(batch))
        except StopIteration:
            break
    assert set(sizes[:-1]) == {BATCH}
    assert sum(sizes) == 2 * math.comb(11, 3)


def test_a_large_space_is_refused_with_its_size(space):
    count = 2 * math.comb(49, 9)
    with pytest.raises(UsageError, match=f"{count:,} candidates") as caught:
        next(ALGORITHMS["exhaustive"].propose(space(50, 10), random.Random(0)))
    assert "joint" in caught.value.remedy


def test_the_limit_is_the_largest_space_that_is_tried(space, monkeypatch):
    propose = ALGORITHMS["exhaustive"].propose
    assert 2 * math.comb(15, 5) <= LIMIT
    monkeypatch.setattr(sys.modules["budc.compiler.search.exhaustive"], "LIMIT", 12)
    assert len(next(propose(space(4, 2, payloads=("velocity",)), random.Random(0)))) == 3
    assert len(next(propose(space(7, 2), random.Random(0)))) == 12
    with pytest.raises(UsageError, match="14 candidates"):
        next(propose(space(8, 2), random.Random(0)))
