"""What holds for every registered search, whatever it is."""

import random

import pytest

from budc.compiler.search import ALGORITHMS, GIVEN, algorithm
from budc.schema.errors import UsageError
from budc.schema.mask import StepMask

REFERENCES = ("paper", "uniform")
SEEKERS = ("exhaustive", "anneal", "hillclimb")
SEEDED = ("anneal", "hillclimb")
TARGETS = [
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (0, 2, 3, 9, 17, 18, 30, 41, 48, 49),
    (0, 41, 42, 43, 44, 45, 46, 47, 48, 49),
]


@pytest.fixture(scope="session")
def small(space, costs):
    """A space that every search accepts."""
    errors = {"trunk-residual": costs(12, 1), "velocity": costs(12, 2)}
    return space(12, 4, errors=errors, published_masks=((0, 1, 2, 11), (0, 3, 4, 9)))


@pytest.fixture(scope="session")
def rugged():
    """A landscape without any order."""
    return lambda candidate: random.Random(candidate.key).uniform(-5, 5)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_candidate_is_in_the_space_and_the_winner_is_the_best_of_them(name, run, small, rugged):
    for seed in range(4):
        winner, seen = run(name, small, rugged, seed)
        for candidate in seen:
            assert candidate.mask.nfe == small.nfe
            assert candidate.mask.steps == small.steps
            assert len(candidate.masks) == 1
            assert candidate.rule == ("plain" if name in (*REFERENCES, GIVEN) else small.rule)
            assert candidate.payload in small.payloads
        assert winner in seen
        assert rugged(winner) == min(map(rugged, seen))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_announced_number_of_candidates_is_never_exceeded(name, run, small, rugged, bowl):
    for loss in (rugged, bowl(((0, 9, 10, 11),))):
        for seed in range(4):
            _, seen = run(name, small, loss, seed)
            assert len({candidate.key for candidate in seen}) <= ALGORITHMS[name].max_candidates(small)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_seed_proposes_the_same(name, run, small, rugged):
    assert run(name, small, rugged, 3) == run(name, small, rugged, 3)


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_proposes_others(name, run, small, rugged):
    assert run(name, small, rugged, 3)[1] != run(name, small, rugged, 4)[1]


@pytest.mark.parametrize("name", SEEKERS)
@pytest.mark.parametrize("payload", ["velocity", "trunk-residual"])
@pytest.mark.parametrize("seed", range(5))
def test_a_quadratic_landscape_is_solved(name, payload, seed, run, space, bowl):
    rng = random.Random(seed)
    target = (0, *sorted(rng.sample(range(1, 16), 4)))
    winner, _ = run(name, space(16, 5), bowl((target,), payload), seed)
    assert (winner.mask.compute_steps, winner.payload) == (target, payload)


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(3))
def test_a_quadratic_landscape_of_fifty_steps_is_solved(name, target, seed, run, space, bowl):
    winner, _ = run(name, space(50, 10), bowl((target,)), seed)
    assert winner.mask.compute_steps == target


@pytest.mark.parametrize("name", [*SEEKERS, "joint"])
def test_a_search_goes_on_where_losses_are_infinite(name, run, space, bowl):
    """A fit that diverges is a bad candidate, not the end of a search: here no early step may stand free."""
    target = (0, 2, 5, 9)
    distance = bowl((target,))

    def loss(candidate):
        return float("inf") if candidate.mask.compute_steps[1] > 5 else distance(candidate)

    winner, seen = run(name, space(16, 4), loss)
    assert winner.mask.compute_steps == target
    assert any(loss(candidate) == float("inf") for candidate in seen)


@pytest.mark.parametrize("name", SEEKERS)
def test_the_rule_and_the_payloads_are_the_space_s(name, run, space, rugged):
    _, seen = run(name, space(8, 3, rule="gram", payloads=("velocity",)), rugged)
    assert {(candidate.rule, candidate.payload) for candidate in seen} == {("gram", "velocity")}


@pytest.mark.parametrize("name", [*SEEKERS, "joint"])
@pytest.mark.parametrize(("steps", "nfe"), [(50, 50), (50, 1), (2, 1), (1, 1), (4, 3)])
def test_the_smallest_spaces_end(name, steps, nfe, run, space):
    winner, _ = run(name, space(steps, nfe), lambda _: 0.5)
    assert winner.mask.nfe == nfe


@pytest.mark.parametrize("name", [*SEEKERS, "joint"])
@pytest.mark.parametrize("target", [((0, 2, 5), (0, 3, 4)), ((0, 4), (0, 1, 2, 5)), ((0, 1, 3, 5), (0, 2))])
def test_branches_may_differ_under_one_total(name, target, run, space):
    separate = space(6, 3, branches=("cond", "uncond"), separate=True)

    def loss(candidate):
        masks = candidate.masks * (3 - len(candidate.masks))
        wanted = [StepMask.from_compute_steps(6, steps) for steps in target]
        return sum(
            a != b for mask, want in zip(masks, wanted, strict=True) for a, b in zip(mask, want, strict=True)
        )

    winner, seen = run(name, separate, loss)
    assert tuple(mask.compute_steps for mask in winner.masks) == target
    for candidate in seen:
        assert sum(mask.nfe for mask in candidate.masks) == 3 * len(candidate.masks)
        assert len(candidate.masks) == 1 or len(set(candidate.masks)) == 2


def test_the_reference_searches_minimise_the_mean_and_all_others_the_robust_one():
    mean = {name for name, entry in ALGORITHMS.items() if entry.objective == "mean"}
    assert mean == set(REFERENCES)


def test_uniform_proposes_the_uniform_mask_only(run, space):
    winner, seen = run("uniform", space(50, 10), lambda _: 1.0)
    assert [winner] == seen
    assert winner.mask == StepMask.uniform(50, 10)


def test_an_unknown_algorithm_names_the_known():
    with pytest.raises(UsageError) as caught:
        algorithm("papre")
    assert "paper" in caught.value.remedy


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "exhaustive"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("nfe", "first_steps"), [(5, (4,)), (5, (1, 9)), (3, (2, 11)), (12, (6,))])
def test_every_candidate_computes_the_first_step_of_every_denoiser(
    name, separate, nfe, first_steps, run, space, costs, rugged
):
    errors = {payload: costs(12, seed) for seed, payload in enumerate(("velocity", "trunk-residual"))}
    box = space(
        12,
        nfe,
        branches=("cond", "uncond"),
        separate=separate,
        first_steps=first_steps,
        errors=errors,
        published_masks=(tuple(range(nfe)), (0, *range(13 - nfe, 12))),
    )
    winner, seen = run(name, box, rugged)
    assert winner in seen
    for candidate in seen:
        assert sum(mask.nfe for mask in candidate.masks) == nfe * len(candidate.masks)
        for mask in candidate.masks:
            assert all(mask[step] for step in (0, *first_steps))


@pytest.mark.parametrize("name", SEEKERS)
def test_the_best_candidate_through_a_fixed_step_is_found(name, run, space, bowl):
    target = (0, 3, 7, 9, 13)
    winner, _ = run(name, space(16, 5, first_steps=(9,)), bowl((target,)))
    assert (winner.mask.compute_steps, winner.payload) == (target, "velocity")
