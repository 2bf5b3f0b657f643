"""The masks that a search starts from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budc.compiler.search.starts import power_spaced, starting_masks


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


def test_starts_are_spread_evenly_and_by_a_power_law_and_lead_through_the_fixed_steps(space, costs):
    assert starting_masks(space(50, 5)) == [(0, 12, 24, 36, 48), (0, 6, 17, 31, 48)]
    wanted = space(
        50, 5, first_steps=(20,), errors={"velocity": costs(50, 1)}, published_masks=((0, 1, 2, 3, 49),)
    )
    starts = starting_masks(wanted)
    assert len(starts) == 4
    assert all({0, 20} <= {*mask} and len(mask) == 5 for mask in starts)
