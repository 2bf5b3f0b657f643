"""The masks that a search starts from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.starts import power_spaced, ranked_masks, starting_masks


@given(st.integers(1, 60), st.data(), st.floats(1.0, 6.0))
def test_a_power_law_gives_a_mask_that_begins_at_the_first_step_and_leaves_room_for_all(steps, data, power):
    nfe = data.draw(st.integers(1, steps))
    spaced = power_spaced(steps, nfe, power)
    assert len(set(spaced)) == nfe
    assert list(spaced) == sorted(spaced)
    assert spaced[0] == 0
    assert spaced[-1] < steps


@pytest.mark.parametrize(
    ("power", "steps"), [(1.0, (0, 12, 24, 36, 48)), (1.5, (0, 6, 17, 31, 48)), (6.0, (0, 1, 2, 9, 48))]
)
def test_a_power_law_spreads_steps_to_the_last_but_one(power, steps):
    assert power_spaced(50, 5, power) == steps


PUBLISHED = (0, 1, 2, 3, 4, 5, 6, 49)


@pytest.fixture
def box(space, costs):
    """A space with everything that masks may come from, and a step that all of them compute."""
    return space(
        50,
        8,
        first_steps=(20,),
        errors={"velocity": costs(50, 1)},
        step_sizes=tuple(4.0 ** (step % 7) for step in range(50)),
        published_masks=(PUBLISHED,),
        starts=((0, 2, 4, 7, 13, 20, 33, 44),),
    )


def test_starts_are_a_power_law_and_shortest_paths_and_what_was_given(box):
    starts = starting_masks(box)
    paths = [shortest_path(box, "velocity", power) for power in (0.0, 1.0, 2.0)]
    assert len(set(paths)) == 3
    assert starts == [box.through(power_spaced(50, 8, 1.5)), *paths, (0, 2, 4, 7, 13, 20, 33, 44)]


def test_without_reuse_errors_steps_are_also_spread_evenly(space):
    assert starting_masks(space(50, 5)) == [(0, 6, 17, 31, 48), (0, 12, 24, 36, 48)]


def test_power_laws_published_masks_and_shortest_paths_are_ranked(box):
    ranked = ranked_masks(box)
    assert {box.through(PUBLISHED), box.through(power_spaced(50, 8, 1.0))} <= {*ranked}
    assert {shortest_path(box, "velocity", power) for power in (0.0, 0.5, 1.0, 1.5, 2.0)} <= {*ranked}
    assert len(ranked) == len({*ranked})


@pytest.mark.parametrize("masks", [starting_masks, ranked_masks])
def test_all_lead_through_the_fixed_steps(box, masks):
    assert all({0, 20} <= {*mask} and len(mask) == 8 for mask in masks(box))
