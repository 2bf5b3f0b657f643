import math

import pytest

from budc.schema.errors import SemanticsViolation
from budc.schema.mask import MAX_STEPS
from budc.schema.sigmas import Sigmas


def test_a_schedule_counts_steps_without_its_terminal_value() -> None:
    sigmas = Sigmas.of([1.0, 0.75, 0.25, 0.0])
    assert (sigmas.steps, sigmas.terminal) == (3, 0.0)
    assert sigmas == (1.0, 0.75, 0.25, 0.0)


def test_values_are_kept_to_the_last_bit() -> None:
    assert Sigmas.of([math.nextafter(1, 2), 1, 0])[0] == math.nextafter(1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "1 sigmas"),
        ([float(MAX_STEPS + 1 - i) for i in range(MAX_STEPS + 2)], "1002 sigmas"),
        ([1.0, 0.5, 0.5, 0.0], r"sigmas\[2\]"),
        ([0.5, 1.0, 0.0], r"sigmas\[1\]"),
        ([math.nan, 0.0], r"sigmas\[0\]"),
        ([1.0, math.nan], r"sigmas\[1\]"),
        ([math.inf, 1.0], r"sigmas\[0\]"),
        ([1.0, -0.1], r"sigmas\[1\]"),
        ([2e6, 1.0], r"sigmas\[0\]"),
    ],
    ids=["one", "many", "repeated", "rising", "nan-first", "nan-last", "infinite", "negative", "huge"],
)
def test_bad_schedules_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(SemanticsViolation, match=message):
        Sigmas.of(values)
