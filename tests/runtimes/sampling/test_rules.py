"""Fixed rules: coefficients from the mask alone."""

import pytest

from budc.runtimes.sampling.rules import FIXED_RULES, fixed_row, fixed_rows
from budc.schema.mask import StepMask
from budc.schema.predictor import Predictor


def test_plain_repeats_the_newest():
    assert fixed_row("plain", 5, (3, 1)) == (1.0,)


def test_linear_continues_the_line_through_the_two_newest():
    # h = 2 t + 1 at the steps 1 and 3 is 11 at step 5.
    newest, previous = fixed_row("linear", 5, (3, 1, 0))
    assert newest * 7 + previous * 3 == 11


def test_linear_repeats_where_one_step_was_computed():
    assert fixed_row("linear", 1, (0,)) == (1.0,)


@pytest.mark.parametrize("rule", FIXED_RULES)
def test_rows_belong_to_their_mask(rule):
    mask = StepMask.of([True, True, False, False, True, False])
    rows = Predictor.of(fixed_rows(rule, mask), mask)
    assert rows.mask == mask
    if rule == "linear":
        assert rows[2:4] == ((2.0, -1.0), (3.0, -2.0))
        assert rows[5] == (1 + 1 / 3, -1 / 3)
