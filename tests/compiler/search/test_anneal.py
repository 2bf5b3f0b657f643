import random

import pytest

from budc.compiler.search import ALGORITHMS
from budc.compiler.search.anneal import NEIGHBOURS, accepts, temperatures
from budc.compiler.search.dp import shortest_path
from budc.compiler.search.moves import all_relocations, candidate_of, slots_of, with_every_payload


def test_temperatures_are_the_spread_and_the_least_of_the_differences():
    assert temperatures([3.0, -4.0, 0.0]) == pytest.approx((12.5**0.5, 3.0))
    assert temperatures([0.0, 0.0]) == (0.0, 0.0)
    assert temperatures([]) == (0.0, 0.0)
    assert temperatures([float("inf"), float("nan"), 2.0]) == (2.0, 2.0)


@pytest.mark.parametrize("temperature", [0.0, 1e-9, 1.0])
def test_what_is_no_worse_is_always_accepted(temperature):
    rng = random.Random(0)
    assert all(accepts(rise, temperature, rng) for rise in (-1.0, 0.0))


def test_a_rise_is_accepted_as_often_as_metropolis_says():
    rng = random.Random(0)
    accepted = sum(accepts(1.0, 2.0, rng) for _ in range(20_000)) / 20_000
    assert accepted == pytest.approx(2.718281828**-0.5, abs=0.01)
    assert not any(accepts(1.0, 0.0, rng) for _ in range(100))


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_the_scale_of_the_losses_changes_nothing(run, space, scale):
    """Powers of two, so that not even rounding differs. With constant temperatures it would change everything."""

    def loss(candidate):
        return random.Random(candidate.key).random()

    box = space(20, 5)
    assert run("anneal", box, loss, 1) == run("anneal", box, lambda candidate: scale * loss(candidate), 1)


def test_it_starts_from_the_best_of_uniform_dp_published_and_random(run, space, costs):
    published = (0, 1, 7, 8)
    box = space(12, 4, errors={"velocity": costs(12, 5)}, published_masks=(published,))
    path = shortest_path(box, "velocity")
    proposals = ALGORITHMS["anneal"].propose(box, random.Random(0))
    first = next(proposals)
    steps = [candidate.mask.compute_steps for candidate in first]
    assert {(0, 3, 6, 9), published, path} <= set(steps)
    assert len(set(first)) == len(first)
    best = steps.index(path)
    neighbours = proposals.send([float(index != best) for index in range(len(first))])
    assert len(neighbours) == NEIGHBOURS
    for candidate in neighbours:
        assert len(set(path) - set(candidate.mask.compute_steps)) == 1
        assert candidate.payload == "velocity"


def test_it_leaves_a_local_minimum(run, space):
    """Moves by less than five steps cost more than they bring, so a descent stays where it starts."""
    box, target = space(50, 5, payloads=("velocity",)), (0, 20, 25, 40, 45)

    def loss(candidate):
        away = [abs(a - b) for a, b in zip(candidate.mask.compute_steps, target, strict=True)]
        return sum(distance + 4 * (distance % 5 != 0) for distance in away)

    (start,) = with_every_payload(box)
    neighbours = [
        candidate_of(box, slots, "velocity")
        for slots in all_relocations(box, slots_of(box, start), (1, 2, 3))
    ]
    assert min(map(loss, neighbours)) > loss(start) > 0
    winners = [run("anneal", box, loss, seed)[0].mask.compute_steps for seed in range(10)]
    assert winners.count(target) >= 8


def test_no_step_but_the_first_is_protected(run, space):
    _, seen = run("anneal", space(20, 6), lambda candidate: random.Random(candidate.key).random())
    assert {step for candidate in seen for step in range(20) if not candidate.mask[step]} == set(range(1, 20))
