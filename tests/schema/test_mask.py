import pickle

import pytest

from budc.schema.errors import SemanticsViolation
from budc.schema.mask import MAX_STEPS, StepMask


def test_counts_and_indices_of_a_mask() -> None:
    mask = StepMask.of([True, False, True, False, False])
    assert (mask.steps, mask.nfe, mask.compute_steps) == (5, 2, (0, 2))
    assert mask.strip() == "█·█··"
    assert mask == (True, False, True, False, False)


@pytest.mark.parametrize(
    ("steps", "nfe", "expected"),
    [(6, 3, (0, 2, 4)), (28, 8, (0, 4, 7, 10, 14, 18, 21, 24)), (5, 5, (0, 1, 2, 3, 4)), (9, 1, (0,))],
)
def test_uniform_computes_the_rounded_multiples(steps: int, nfe: int, expected: tuple[int, ...]) -> None:
    assert StepMask.uniform(steps, nfe).compute_steps == expected


def test_uniform_has_exactly_the_asked_nfe_for_every_budget() -> None:
    assert all(StepMask.uniform(50, nfe).nfe == nfe for nfe in range(1, 51))


def test_from_compute_steps_inverts_compute_steps() -> None:
    mask = StepMask.uniform(28, 9)
    assert StepMask.from_compute_steps(28, mask.compute_steps) == mask


def test_a_mask_hashes_and_pickles_as_a_mask() -> None:
    mask = StepMask.uniform(28, 9)
    copy = pickle.loads(pickle.dumps(mask))
    assert {mask: 1}[copy] == 1
    assert isinstance(copy, StepMask)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "0 steps"),
        ([True] * (MAX_STEPS + 1), "1001 steps"),
        ([False, True], r"mask\[0\]"),
        ([True, 1], r"mask\[1\] is 1"),
        ([True, None], r"mask\[1\] is None"),
    ],
    ids=["empty", "too-long", "first-reused", "int", "none"],
)
def test_bad_masks_are_refused(values: list[bool], message: str) -> None:
    with pytest.raises(SemanticsViolation, match=message):
        StepMask.of(values)


@pytest.mark.parametrize(
    ("indices", "message"),
    [([1, 2], r"mask\[0\]"), ([0, 4], "outside"), ([0, -1], "outside"), ([0, 2, 2], "twice")],
    ids=["first-missing", "beyond-the-end", "negative", "repeated"],
)
def test_bad_indices_are_refused(indices: list[int], message: str) -> None:
    with pytest.raises(SemanticsViolation, match=message):
        StepMask.from_compute_steps(4, indices)


@pytest.mark.parametrize("nfe", [0, -1, 5])
def test_uniform_refuses_an_impossible_nfe(nfe: int) -> None:
    with pytest.raises(SemanticsViolation, match=f"nfe is {nfe}"):
        StepMask.uniform(4, nfe)


@pytest.mark.parametrize(
    ("compute", "steps", "expected"),
    [
        ((0, 3, 6), (), (0, 3, 6)),
        ((0, 3, 6), (0, 6), (0, 3, 6)),
        ((0, 3, 6), (4,), (0, 4, 6)),
        ((0, 3, 5), (4,), (0, 4, 5)),
        ((0, 3, 6), (1,), (0, 1, 6)),
        ((0, 3, 6), (7, 2), (0, 2, 7)),
        ((0, 6, 7), (1, 2), (0, 1, 2)),
    ],
)
def test_a_mask_through_given_steps_moves_the_nearest_others(
    compute: tuple[int, ...], steps: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    mask = StepMask.from_compute_steps(8, compute)
    moved = mask.through(steps)
    assert moved.compute_steps == expected
    assert moved.nfe == mask.nfe


def test_too_many_given_steps_are_refused() -> None:
    mask = StepMask.from_compute_steps(8, (0, 3))
    with pytest.raises(SemanticsViolation, match="2 computed steps are too few for 0, 1, 4"):
        mask.through([1, 4])
    with pytest.raises(SemanticsViolation, match="step 8 is outside"):
        mask.through([8])
