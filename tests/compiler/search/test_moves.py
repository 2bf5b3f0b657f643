import random
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budc.compiler.search.moves import (
    all_candidates,
    all_relocations,
    candidate_count,
    candidate_of,
    free_slots,
    mask_count,
    movable_slots,
    perturbed,
    random_neighbour,
    relocations,
    run_shifts,
    slots_of,
    with_every_payload,
    with_other_payloads,
)


@st.composite
def spaces(draw, space):
    """A space with one candidate of it."""
    steps = draw(st.integers(1, 12))
    nfe = draw(st.integers(1, steps))
    first_steps = draw(st.sets(st.integers(1, steps - 1), max_size=min(2, nfe - 1))) if steps > 1 else ()
    drawn = space(
        steps,
        nfe,
        branches=("cond", "uncond"),
        separate=draw(st.booleans()),
        first_steps=tuple(sorted(first_steps)),
    )
    count = mask_count(drawn)
    fixed = {slot for slot in range(steps * count) if slot // count in drawn.fixed}
    others = [slot for slot in range(steps * count) if slot not in fixed]
    rest = draw(st.permutations(others))[: nfe * count - len(fixed)]
    return drawn, candidate_of(drawn, sorted({*fixed, *rest}), draw(st.sampled_from(drawn.payloads)))


def within(space, candidate):
    """Whether a candidate has the budget, each branch the fixed steps, and equal masks are one."""
    equal = len(set(candidate.masks)) == 1
    return (
        all(mask.steps == space.steps and all(mask[k] for k in space.fixed) for mask in candidate.masks)
        and sum(mask.nfe for mask in candidate.masks) == space.nfe * len(candidate.masks)
        and len(candidate.masks) == (1 if equal else mask_count(space))
    )


@given(st.data(), st.none() | st.integers(0, 4))
def test_relocations_are_all_moves_of_one_slot_to_a_free_one(space, data, reach):
    box, current = data.draw(spaces(space))
    slots, count = slots_of(box, current), mask_count(box)
    distances = None if reach is None else range(reach + 1)
    wanted = [
        tuple(sorted({*slots, target} - {slot}))
        for slot in slots
        for target in range(box.steps * count)
        if slot // count not in box.fixed
        and target not in slots
        and (reach is None or abs(target // count - slot // count) <= reach)
    ]
    assert sorted(all_relocations(box, slots, distances)) == sorted(wanted)
    for slot in movable_slots(box, slots):
        moved = relocations(box, slots, slot, distances)
        assert sorted(moved) == sorted(other for other in wanted if slot not in other)


@given(st.data(), st.integers(1, 3))
def test_shifts_are_all_moves_of_a_run_of_neighbouring_slots(space, data, reach):
    """By definition: two slots or more, one after another, each moved by the same distance; the order stays."""
    box, current = data.draw(spaces(space))
    slots, count = slots_of(box, current), mask_count(box)
    wanted = set()
    for first, last in combinations(range(len(slots)), 2):
        for distance in {*range(-reach, reach + 1)} - {0}:
            shifted = [slot + distance * count * (first <= index <= last) for index, slot in enumerate(slots)]
            inside = shifted[0] >= 0 and shifted[-1] < box.steps * count
            ordered = all(before < after for before, after in pairwise(shifted))
            free = all(slot // count not in box.fixed for slot in slots[first : last + 1])
            if inside and ordered and free:
                wanted.add(tuple(shifted))
    shifts = list(run_shifts(box, slots, reach))
    assert len(shifts) == len(set(shifts))
    assert set(shifts) == wanted
    assert all(within(box, candidate_of(box, moved, current.payload)) for moved in shifts)


@given(st.data())
def test_moves_stay_in_the_space_and_change_one_slot(space, data):
    box, current = data.draw(spaces(space))
    assert within(box, current)
    slots = slots_of(box, current)
    for slot in movable_slots(box, slots):
        neighbours = relocations(box, slots, slot, (0, 1, 2, 3))
        assert len(set(neighbours)) == len(neighbours)
        for moved in neighbours:
            candidate = candidate_of(box, moved, current.payload)
            assert within(box, candidate)
            assert slots_of(box, candidate) == moved
            assert set(slots) - set(moved) == {slot}
            (target,) = set(moved) - set(slots)
            assert abs(target // mask_count(box) - slot // mask_count(box)) <= 3
    for candidate in with_other_payloads(box, current):
        assert slots_of(box, candidate) == slots
        assert candidate.payload != current.payload


@given(st.data(), st.integers(0, 99), st.integers(1, 3))
def test_a_perturbation_moves_as_many_computed_steps_as_asked(space, data, seed, moves):
    box, current = data.draw(spaces(space))
    slots = slots_of(box, current)
    candidate = perturbed(box, current, random.Random(seed), moves)
    assert within(box, candidate)
    moved = len(set(slots) - set(slots_of(box, candidate)))
    assert moved == min(moves, len(movable_slots(box, slots)), len(free_slots(box, slots)))


@given(st.data(), st.integers(0, 99))
def test_a_random_neighbour_has_one_computed_step_moved(space, data, seed):
    box, current = data.draw(spaces(space))
    slots = slots_of(box, current)
    candidate = random_neighbour(box, current, random.Random(seed), 3)
    assert within(box, candidate)
    moved = len(set(slots) - set(slots_of(box, candidate)))
    assert moved == (1 if movable_slots(box, slots) and free_slots(box, slots) else 0)


def test_a_random_neighbour_is_near_where_it_can_be(space):
    box = space(50, 4)
    current = candidate_of(box, (0, 10, 25, 40), "velocity")
    for seed in range(50):
        slots = set(slots_of(box, random_neighbour(box, current, random.Random(seed), 3)))
        (left,), (arrived,) = {0, 10, 25, 40} - slots, slots - {0, 10, 25, 40}
        assert 0 < abs(left - arrived) <= 3


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("first_steps", [(), (2,)])
def test_every_candidate_is_listed_once_and_reached_by_moves(space, separate, first_steps):
    nfe = 2 + len(first_steps)
    box = space(5, nfe, branches=("cond", "uncond"), separate=separate, first_steps=first_steps)
    listed = list(all_candidates(box))
    keys = {candidate.key for candidate in listed}
    assert len(listed) == len(set(listed)) == len(keys) == candidate_count(box)
    assert all(within(box, candidate) for candidate in listed)
    reached = edge = {listed[0]}
    while edge:
        neighbours = {
            candidate
            for current in edge
            for candidate in (
                *with_other_payloads(box, current),
                *(
                    candidate_of(box, slots, current.payload)
                    for slots in all_relocations(box, slots_of(box, current), (0, 1, 2, 3))
                ),
            )
        }
        edge = neighbours - reached
        reached = reached | edge
    assert reached == set(listed)


def test_late_steps_move_first(space):
    assert movable_slots(space(12, 4), (0, 3, 7, 9)) == [9, 7, 3]


def test_starts_lead_through_the_fixed_steps(space):
    box = space(12, 4, first_steps=(5,))
    assert {start.mask.compute_steps for start in with_every_payload(box)} == {(0, 3, 5, 9)}
    assert {start.mask.compute_steps for start in with_every_payload(box, (0, 1, 2, 11))} == {(0, 1, 5, 11)}


def test_starts_are_evenly_spread_with_every_payload(space):
    starts = with_every_payload(space(12, 4))
    assert {start.mask.compute_steps for start in starts} == {(0, 3, 6, 9)}
    assert [start.payload for start in starts] == ["trunk-residual", "velocity"]
