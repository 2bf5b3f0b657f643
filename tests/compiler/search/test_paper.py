import random

import pytest

from budc.compiler.search import ALGORITHMS, Space
from budc.compiler.search.paper import (
    ANNEALING_STEPS,
    candidates_of_paper,
    neighbours,
    protected_prefix,
    random_relocation,
)
from budc.policies.profile import AnnealingSettings

DEFAULTS = AnnealingSettings(temperature_start=0.1, temperature_end=1e-4, protected_fraction=0.3)
SPACE = Space(steps=50, nfe=10, annealing=DEFAULTS)


def distance(target):
    """A loss with one minimum: how far the computed steps are from a target."""
    return lambda candidate: (
        sum(abs(a - b) for a, b in zip(candidate.mask.compute_steps, target, strict=True)) / 100
    )


def test_paper_is_plain_reuse_of_trunk_residuals(run):
    _, seen = run("paper", SPACE, distance(range(0, 50, 5)))
    assert {(candidate.rule, candidate.payload) for candidate in seen} == {("plain", "trunk-residual")}


def test_paper_keeps_the_budget_and_the_prefix(run):
    _, seen = run("paper", SPACE, distance(range(0, 50, 5)))
    assert {candidate.mask.nfe for candidate in seen} == {10}
    assert all(candidate.mask.compute_steps[:3] == (0, 1, 2) for candidate in seen)


@pytest.mark.parametrize(("nfe", "prefix"), [(10, 3), (4, 1), (2, 1)])
def test_paper_keeps_the_fixed_steps(run, nfe, prefix):
    space = Space(steps=50, nfe=nfe, annealing=DEFAULTS, first_steps=(20,))
    _, seen = run("paper", space, distance(range(nfe)))
    assert {candidate.mask.nfe for candidate in seen} == {nfe}
    kept = {*range(prefix), 20}
    assert all(kept <= set(candidate.mask.compute_steps) for candidate in seen)
    assert len({candidate.mask for candidate in seen}) > 1 or nfe == 2
    assert len(seen) <= candidates_of_paper(space)


def test_paper_climbs_to_the_minimum_of_an_easy_landscape(run):
    target = (0, 1, 2, 7, 13, 20, 28, 36, 44, 49)
    winner, _ = run("paper", SPACE, distance(target))
    assert winner.mask.compute_steps == target


def test_paper_never_returns_worse_than_anything_it_has_seen(run):
    """The start included: here every move away from it is worse."""
    for seed in range(5):
        losses = {}
        ranks = iter(range(10**6))

        def loss(candidate, losses=losses, ranks=ranks):
            return losses.setdefault(candidate.key, float(next(ranks)))

        winner, seen = run("paper", SPACE, loss, seed)
        assert losses[winner.key] == min(losses.values()) == 0.0
        assert winner == seen[0]


def test_paper_is_repeatable_by_seed(run):
    loss = distance(range(0, 50, 5))
    assert run("paper", SPACE, loss, 1) == run("paper", SPACE, loss, 1)
    assert run("paper", SPACE, loss, 1)[1] != run("paper", SPACE, loss, 2)[1]


def test_paper_anneals_two_hundred_moves():
    proposals = ALGORITHMS["paper"].propose(SPACE, random.Random(0))
    sizes, batch = [], next(proposals)
    while len(batch) == 1:
        sizes.append(len(batch))
        batch = proposals.send([1.0])
    assert len(sizes) == 1 + ANNEALING_STEPS


def farthest_proposal(temperature):
    """How many steps proposals get away from a start that nothing beats, in 60 moves."""
    defaults = AnnealingSettings(
        temperature_start=temperature, temperature_end=temperature, protected_fraction=0.3
    )
    proposals = ALGORITHMS["paper"].propose(Space(steps=50, nfe=10, annealing=defaults), random.Random(3))
    (start,) = next(proposals)
    (candidate,) = proposals.send([0.0])
    away = 0
    for _ in range(60):
        away = max(away, len(set(start.mask.compute_steps) - set(candidate.mask.compute_steps)))
        (candidate,) = proposals.send([1.0])
    return away


def test_cold_annealing_stays_at_the_start_and_hot_annealing_leaves_it():
    assert farthest_proposal(1e-9) <= 2
    assert farthest_proposal(1e9) > 2


@pytest.mark.parametrize(("steps", "nfe"), [(50, 50), (50, 1), (2, 1), (1, 1), (4, 3)])
def test_paper_ends_in_the_smallest_spaces(run, steps, nfe):
    winner, _ = run("paper", Space(steps=steps, nfe=nfe, annealing=DEFAULTS), lambda _: 0.5)
    assert winner.mask.nfe == nfe


def test_neighbours_are_relocations_of_one_step_without_repeats():
    start = (0, 1, 2, 10, 11, 30, 49)
    space = Space(steps=50, nfe=7, annealing=DEFAULTS)
    around = neighbours(space, start, random.Random(0))
    assert len(around) == len(set(around))
    assert all(len(set(start) - set(steps)) == 1 for steps in around)
    near = {(0, 1, 2, 10, 11, step, 49) for step in (27, 28, 29, 31, 32, 33)}
    assert near <= {tuple(sorted(steps)) for steps in around}


def test_a_random_relocation_moves_one_step_outside_the_prefix():
    rng = random.Random(0)
    start = tuple(range(0, 50, 5))
    for _ in range(200):
        moved = random_relocation(SPACE, start, rng)
        assert len(set(moved) - set(start)) == 1
        assert all(step >= protected_prefix(SPACE) for step in set(start) - set(moved))
