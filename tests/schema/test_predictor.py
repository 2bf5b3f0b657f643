import math
import pickle

import pytest

from budc.schema.errors import SemanticsViolation
from budc.schema.mask import StepMask
from budc.schema.predictor import Predictor

MASK = StepMask.of([True, True, False, True, False])


def test_plain_reuse_repeats_the_newest_residual() -> None:
    assert Predictor.plain_reuse(MASK) == ((), (), (1.0,), (), (1.0,))


def test_a_predictor_knows_its_mask_and_how_much_to_remember() -> None:
    predictor = Predictor.of([[], [], [2.0, -1.0], [], [1.0]], MASK)
    assert predictor.mask == MASK
    assert predictor.terms == 2
    assert Predictor.plain_reuse(StepMask.of([True, True])).terms == 0


def test_a_predictor_pickles_as_a_predictor() -> None:
    copy = pickle.loads(pickle.dumps(Predictor.plain_reuse(MASK)))
    assert isinstance(copy, Predictor)
    assert copy.mask == MASK


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "0 rows"),
        ([[1.0], []], r"predictor\[0\] needs 1 residuals, but only 0"),
        ([[], [1.0, 2.0]], r"predictor\[1\] needs 2 residuals, but only 1"),
        ([[], [1.0], [1.0, 1.0]], r"predictor\[2\] needs 2 residuals, but only 1"),
        ([[], [], [], [], [1.0] * 4], r"predictor\[4\] has 4 coefficients"),
        ([[], [math.nan]], r"predictor\[1\]\[0\] is nan"),
        ([[], [math.inf]], r"predictor\[1\]\[0\] is inf"),
        ([[], [], [1.0, -64.5]], r"predictor\[2\]\[1\] is -64.5"),
    ],
    ids=[
        "empty", "first-reused", "more-than-computed", "reused-does-not-count", "four-terms", "nan",
        "infinite", "too-large",
    ],
)  # fmt: skip
def test_bad_rows_are_refused(rows: list[list[float]], message: str) -> None:
    with pytest.raises(SemanticsViolation, match=message):
        Predictor(rows)


def test_residuals_begin_anew_where_another_denoiser_takes_over() -> None:
    rows = [[], [], [2.0, -1.0], [], [1.0]]
    assert Predictor.of(rows, MASK, [3]) == Predictor.of(rows, MASK)
    with pytest.raises(
        SemanticsViolation, match=r"predictor\[2\] needs 2 residuals, but only 1 come after .* 1"
    ):
        Predictor.of(rows, MASK, [1])
    with pytest.raises(
        SemanticsViolation, match=r"mask\[2\] is false, but another denoiser's first step is there"
    ):
        Predictor.of([[], [], [1.0], [], [1.0]], MASK, [2])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[], [], [1.0], []], "4 rows, but the mask has 5"),
        ([[], [1.0], [1.0], [], [1.0]], "step 1 is computed"),
        ([[], [], [], [], [1.0]], "step 2 is reused"),
    ],
    ids=["too-short", "coefficients-where-computed", "none-where-reused"],
)
def test_rows_of_another_mask_are_refused(rows: list[list[float]], message: str) -> None:
    with pytest.raises(SemanticsViolation, match=message):
        Predictor.of(rows, MASK)
