"""One damped Gauss-Newton step from the normal equations of several prompts."""

import math

import pytest
import torch

from budc.compiler.fitting import gauss_newton
from budc.compiler.fitting.gauss_newton import DAMPINGS, NormalEquations, best_move


@pytest.fixture
def linear():
    """Errors e_p - J_p · m that a move can halve but not remove: J (prompts, directions, size), e (prompts, size)."""
    generator = torch.Generator().manual_seed(3)
    columns = torch.randn(5, 3, 20, generator=generator, dtype=torch.float64)
    wanted = torch.tensor([0.5, -2.0, 0.01], dtype=torch.float64)
    noise = torch.randn(5, 20, generator=generator, dtype=torch.float64)
    return columns, torch.einsum("pds,d->ps", columns, wanted) + 0.5 * noise


def equations(columns, errors):
    return [NormalEquations.of(*own) for own in zip(columns, errors, strict=True)]


@pytest.fixture
def damped(monkeypatch):
    """Return the move with a damping that is given."""

    def damped(equations, damping):
        with monkeypatch.context() as patch:
            patch.setattr(gauss_newton, "DAMPINGS", (damping,))
            return best_move(equations)

    return damped


def test_without_damping_it_is_the_weighted_least_squares_solution(linear, damped):
    columns, errors = linear
    root = errors.square().sum(1).rsqrt()[:, None]
    stacked = (columns * root[:, None]).transpose(1, 2).reshape(-1, 3)
    expected = torch.linalg.lstsq(stacked, (errors * root).flatten()[:, None]).solution[:, 0]
    assert damped(equations(columns, errors), 0.0) == pytest.approx(expected.tolist(), rel=1e-9)


def test_damping_shortens_the_move(linear, damped):
    free, some, stiff = (
        torch.tensor(damped(equations(*linear), damping)).norm() for damping in (0.0, 0.1, 100.0)
    )
    assert stiff < 0.1 * free
    assert some < free


def test_errors_fall(linear):
    columns, errors = linear
    move = torch.tensor(best_move(equations(columns, errors)), dtype=torch.float64)
    before = errors.square().sum(1).log().mean()
    after = (errors - torch.einsum("pds,d->ps", columns, move)).square().sum(1).log().mean()
    assert after < before - 1


@pytest.mark.parametrize("prompts", [5, 6])
def test_what_prompts_have_in_common_is_damped_little_and_what_they_have_not_much(linear, damped, prompts):
    columns, errors = linear
    shared = equations(columns, errors)
    assert best_move(shared) == damped(shared, min(DAMPINGS))
    # Columns of noise explain errors of the prompts that they are fitted to, and of no others.
    generator = torch.Generator().manual_seed(prompts)
    noise = torch.randn(prompts, 20, 24, generator=generator, dtype=torch.float64)
    own = equations(noise, torch.randn(prompts, 24, generator=generator, dtype=torch.float64))
    assert best_move(own) == damped(own, max(DAMPINGS))


def test_the_unit_of_a_direction_changes_nothing(linear):
    columns, errors = linear
    scale = torch.tensor([1.0, 1e6, 1e-6])
    move = best_move(equations(columns * scale[:, None], errors))
    assert (torch.tensor(move) * scale).tolist() == pytest.approx(
        best_move(equations(columns, errors)), rel=1e-6
    )


def test_a_prompt_with_large_errors_decides_no_more_than_others(linear):
    columns, errors = linear
    columns, errors = columns.clone(), errors.clone()
    columns[0] *= 1e4
    errors[0] *= 1e4
    assert best_move(equations(columns, errors)) == pytest.approx(best_move(equations(*linear)), rel=1e-6)


def test_nothing_moves_along_what_changes_nothing(linear):
    columns, errors = linear
    columns = columns.clone()
    columns[:, 1] = 0
    move = best_move(equations(columns, errors))
    assert move[1] == 0
    assert all(map(math.isfinite, move))


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_prompt_that_is_not_finite_says_nothing(linear, value):
    columns, errors = linear
    broken = columns[0].clone()
    broken[0, 0] = value
    move = best_move([NormalEquations.of(broken, errors[0]), *equations(columns[1:], errors[1:])])
    assert move == pytest.approx(best_move(equations(columns[1:], errors[1:])))
    assert best_move([NormalEquations.of(broken, errors[0])]) == (0, 0, 0)


def test_records_of_another_number_of_directions_do_not_fit(linear):
    own = equations(*linear)[0]
    assert own.fits(3)
    assert not own.fits(2)
    assert not NormalEquations(own.curvature[:2], own.slope, own.error).fits(3)
    assert not NormalEquations((*own.curvature[:2], own.curvature[2][:1]), own.slope, own.error).fits(3)
