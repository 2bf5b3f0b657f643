"""Noise schedules as numbers."""

import pytest

from budc.compiler.rollouts.schedule import NoiseSchedule


@pytest.mark.parametrize("sigmas", [(1.0, 0.75, 0.25, 0.0), (0.0, 0.25, 0.75, 1.0)])
def test_step_sizes_are_how_much_sigma_changes(sigmas):
    schedule = NoiseSchedule.of(None, sigmas, (900.0, 600.0, 200.0))
    assert schedule.step_sizes == (0.25, 0.5, 0.25)
