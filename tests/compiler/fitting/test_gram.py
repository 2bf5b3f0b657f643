"""Least squares on Gram matrices, against least squares on the residuals themselves."""

import math

import pytest
import torch

from budc.compiler.fitting.gram import RIDGE, fit, mean_gram, segment_errors

STEPS, SIZE = 6, 40


@pytest.fixture
def residuals():
    """(branches, steps, size) float64: a smooth path and some noise, as the residuals of a run are."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(2, 3, SIZE, generator=generator, dtype=torch.float64)
    times = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    smooth = base[:, :1] + times[:, None] * base[:, 1:2] + times[:, None] ** 2 * base[:, 2:]
    return smooth + 0.01 * torch.randn(2, STEPS, SIZE, generator=generator, dtype=torch.float64)


def gram_of(residuals):
    return residuals @ residuals.transpose(-1, -2) / residuals.shape[-1]


def dense(residuals, step, history, ridge):
    """Coefficients and squared distance by a stacked solve: data rows, then one row a coefficient."""
    columns = residuals[history].T / math.sqrt(SIZE)
    scale = columns.square().sum(0).mean()
    stacked = torch.cat([columns, (ridge * scale).sqrt() * torch.eye(len(history), dtype=torch.float64)])
    target = residuals[step] / math.sqrt(SIZE)
    right = torch.cat([target, torch.zeros(len(history), dtype=torch.float64)])
    solution = torch.linalg.lstsq(stacked, right).solution
    return solution, float((target - columns @ solution).square().sum())


@pytest.mark.parametrize("history", [[2], [3, 1], [3, 2, 0], [4, 3, 2]])
@pytest.mark.parametrize("ridge", [RIDGE, 0.3])
def test_coefficients_are_a_dense_solves(residuals, history, ridge):
    gram = gram_of(residuals)[0]
    coefficients, error = fit(gram, 5, history, ridge)
    expected, left = dense(residuals[0], 5, history, torch.tensor(ridge, dtype=torch.float64))
    torch.testing.assert_close(
        torch.tensor(coefficients, dtype=torch.float64), expected, rtol=1e-7, atol=1e-9
    )
    assert error == pytest.approx(left, rel=1e-6, abs=1e-12)


def test_a_step_that_is_a_combination_is_found():
    residuals = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    residuals[2] = 1.5 * residuals[1] - 0.5 * residuals[0]
    coefficients, error = fit(gram_of(residuals), 2, [1, 0], ridge=1e-12)
    assert coefficients == pytest.approx((1.5, -0.5), abs=1e-9)
    assert error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("terms", [1, 2])
def test_the_error_tensor_is_brute_force(residuals, terms):
    gram = gram_of(residuals)
    errors = segment_errors(gram, terms)
    for previous in range(STEPS):
        for last in range(STEPS):
            for step in range(STEPS):
                error = float(errors[previous, last, step])
                if not previous <= last < step:
                    assert error == math.inf
                    continue
                history = [last] if terms == 1 or previous == last else [last, previous]
                expected = sum(fit(branch, step, history)[1] for branch in gram)
                assert error == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_every_prompt_has_the_same_say():
    grams = gram_of(torch.randn(3, 2, STEPS, SIZE, generator=torch.Generator().manual_seed(1)).double())
    scaled = grams * torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)[:, None, None, None]
    torch.testing.assert_close(mean_gram(scaled), mean_gram(grams))
    energies = mean_gram(grams).diagonal(dim1=-2, dim2=-1).mean(-1)
    torch.testing.assert_close(energies, torch.ones(2, dtype=torch.float64))
    assert torch.isfinite(mean_gram(torch.zeros(1, 1, 2, 2).double())).all()


def test_residuals_that_are_zero_to_the_last_bit_get_no_coefficients():
    gram = torch.zeros(3, 3, dtype=torch.float64)
    assert fit(gram, 2, [1, 0]) == ((0.0, 0.0), 0.0)
    assert float(segment_errors(gram[None], 2)[0, 1, 2]) == 0.0
    gram[2, 2] = 4.0
    assert fit(gram, 2, [0]) == ((0.0,), 4.0)
