import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budc.compiler.search.moves import (
    all_candidates,
    candidate,
    count,
    free,
    kicked,
    lanes,
    movable,
    nudged,
    relocated,
    relocations,
    starts,
    switches,
    taken,
)


@st.composite
def places(draw, space):
    """A space with one candidate of it."""
    steps = draw(st.integers(1, 12))
    nfe = draw(st.integers(1, steps))
    first_steps = draw(st.sets(st.integers(1, steps - 1), max_size=min(2, nfe - 1))) if steps > 1 else ()
    found = space(
        steps,
        nfe,
        branches=("cond", "uncond"),
        separate=draw(st.booleans()),
        first_steps=tuple(sorted(first_steps)),
    )
    width = lanes(found)
    fixed = {slot for slot in range(steps * width) if slot // width in found.fixed}
    others = [slot for slot in range(steps * width) if slot not in fixed]
    rest = draw(st.permutations(others))[: nfe * width - len(fixed)]
    return found, candidate(found, sorted({*fixed, *rest}), draw(st.sampled_from(found.payloads)))


def within(space, found):
    """Whether a candidate has the budget, each branch the fixed steps, and no two equal masks apart."""
    alike = len(set(found.masks)) == 1
    return (
        all(mask.steps == space.steps and all(mask[k] for k in space.fixed) for mask in found.masks)
        and sum(mask.nfe for mask in found.masks) == space.nfe * len(found.masks)
        and len(found.masks) == (1 if alike else lanes(space))
    )


@given(st.data(), st.none() | st.integers(0, 4))
def test_slots_are_relocated_as_candidates_are(space, data, reach):
    box, current = data.draw(places(space))
    sizes = range(box.steps if reach is None else reach + 1)
    found = list(relocated(box, taken(box, current), reach))
    assert sorted(found) == sorted(
        taken(box, other)
        for slot in movable(box, current)
        for other in relocations(box, current, slot, sizes)
    )


@given(st.data())
def test_moves_stay_in_the_space_and_change_one_slot(space, data):
    box, current = data.draw(places(space))
    assert within(box, current)
    slots = set(taken(box, current))
    for slot in movable(box, current):
        around = relocations(box, current, slot, (0, 1, 2, 3))
        assert len(set(around)) == len(around)
        for found in around:
            assert within(box, found)
            assert slots - set(taken(box, found)) == {slot}
            (target,) = set(taken(box, found)) - slots
            assert abs(target // lanes(box) - slot // lanes(box)) <= 3
    for found in switches(box, current):
        assert taken(box, found) == taken(box, current)
        assert found.payload != current.payload


@given(st.data(), st.integers(0, 99), st.integers(1, 3))
def test_a_kick_moves_as_many_computed_steps_as_asked(space, data, seed, moves):
    box, current = data.draw(places(space))
    found = kicked(box, current, random.Random(seed), moves)
    assert within(box, found)
    moved = len(set(taken(box, current)) - set(taken(box, found)))
    assert moved == min(moves, len(movable(box, current)), len(free(box, current)))


@given(st.data(), st.integers(0, 99))
def test_a_nudge_moves_one_computed_step(space, data, seed):
    box, current = data.draw(places(space))
    found = nudged(box, current, random.Random(seed), 3)
    assert within(box, found)
    moved = len(set(taken(box, current)) - set(taken(box, found)))
    assert moved == (1 if movable(box, current) and free(box, current) else 0)


def test_a_nudge_is_near_where_it_can_be(space):
    box = space(50, 4)
    current = candidate(box, (0, 10, 25, 40), "velocity")
    for seed in range(50):
        found = set(taken(box, nudged(box, current, random.Random(seed), 3)))
        (left,), (arrived,) = {0, 10, 25, 40} - found, found - {0, 10, 25, 40}
        assert 0 < abs(left - arrived) <= 3


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("first_steps", [(), (2,)])
def test_every_candidate_is_listed_once_and_reached_by_moves(space, separate, first_steps):
    nfe = 2 + len(first_steps)
    box = space(5, nfe, branches=("cond", "uncond"), separate=separate, first_steps=first_steps)
    listed = list(all_candidates(box))
    assert len(listed) == len(set(listed)) == len({found.key for found in listed}) == count(box)
    assert all(within(box, found) for found in listed)
    reached = edge = {listed[0]}
    while edge:
        around = {
            found
            for current in edge
            for found in (
                *switches(box, current),
                *(
                    near
                    for slot in movable(box, current)
                    for near in relocations(box, current, slot, (0, 1, 2, 3))
                ),
            )
        }
        edge = around - reached
        reached = reached | edge
    assert reached == set(listed)


def test_late_steps_move_first(space):
    box = space(12, 4)
    assert movable(box, candidate(box, (0, 3, 7, 9), "velocity")) == [9, 7, 3]


def test_starts_lead_through_the_fixed_steps(space):
    box = space(12, 4, first_steps=(5,))
    assert {start.mask.compute_steps for start in starts(box)} == {(0, 3, 5, 9)}
    assert {start.mask.compute_steps for start in starts(box, (0, 1, 2, 11))} == {(0, 1, 5, 11)}


def test_starts_are_evenly_spread_with_every_payload(space):
    found = starts(space(12, 4))
    assert {start.mask.compute_steps for start in found} == {(0, 3, 6, 9)}
    assert [start.payload for start in found] == ["trunk-residual", "velocity"]
