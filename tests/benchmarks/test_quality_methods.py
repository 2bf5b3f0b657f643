"""The arithmetic of the compared methods, against cases that can be worked out by hand."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from quality_methods import few_steps, meancache
from quality_methods.report import report
from quality_methods.scoring import frame_ssim
from quality_methods.trained_steps import SolverParameters


def test_meancache_is_exact_where_the_velocity_is_linear_in_sigma_and_the_step_is_half_as_long():
    # J is half the slope, because the average over a span is the velocity at its middle.
    sigmas = [1.0, 0.8, 0.6, 0.5]
    velocity = [torch.tensor(2 + 3 * sigma) for sigma in sigmas]
    state = [torch.tensor(2 * s + 1.5 * s * s) for s in sigmas]
    found = meancache.forecast(2, 2, state[:3], velocity[:2], sigmas)
    assert found.item() == pytest.approx((velocity[1] + 1.5 * (0.5 - 0.6)).item())
    repeated = meancache.forecast(
        2, 1, [state[0], torch.tensor(0.0), velocity[1] * -0.2], velocity[:2], sigmas
    )
    assert repeated.item() == pytest.approx(velocity[1].item())


def test_adams_bashforth_is_exact_on_linear_velocities_after_its_first_step():
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    form = few_steps.adams_bashforth(sigmas, sigmas[:-1] * 1000)
    velocity = 2 + 3 * sigmas[:-1]
    states = form.velocity @ velocity
    exact = 2 * (sigmas - 1) + 1.5 * (sigmas**2 - 1)
    torch.testing.assert_close(states[1:] - states[1], exact[1:] - exact[1])
    assert states[1] == pytest.approx(float(-0.3 * velocity[0]))


@pytest.fixture
def parameters():
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    return SolverParameters(few_steps.adams_bashforth, sigmas, sigmas[:-1] * 1000, branches=2)


def test_untrained_parameters_are_the_solver_itself(parameters):
    assert parameters.forwards == 4 * 2
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    plain = few_steps.adams_bashforth(sigmas, sigmas[:-1] * 1000)
    torch.testing.assert_close(parameters.form().velocity, plain.velocity)
    torch.testing.assert_close(parameters.form().timesteps, plain.timesteps)


def test_trained_sigmas_stay_monotone_with_both_ends_pinned(parameters):
    with torch.no_grad():
        parameters.groups["sigmas"].copy_(torch.tensor([3.0, -4.0, 0.5, 2.0]))
    sigmas = parameters.schedule()
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert (sigmas[1:] < sigmas[:-1]).all()


def test_corrections_reach_the_three_newest_velocities_and_every_later_state(parameters):
    before = parameters.form().velocity.detach()
    with torch.no_grad():
        parameters.groups["coefficients"][3] = torch.tensor([0.1, 0.2, 0.3])
    change = parameters.form().velocity.detach() - before
    gap = 0.0 - 0.1
    expected = torch.zeros(5, 4, dtype=torch.float64)
    expected[4] = torch.tensor([0.0, 0.3, 0.2, 0.1], dtype=torch.float64) * gap
    torch.testing.assert_close(change, expected)


def test_the_form_is_differentiable_in_both_groups(parameters):
    form = parameters.form()
    (form.velocity.square().sum() + form.timesteps.sum()).backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in parameters.groups.values())


def test_best_timesteps_leave_the_solver_what_it_is():
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    parameters = SolverParameters(
        few_steps.adams_bashforth, sigmas, sigmas[:-1] * 1000, branches=2, coefficients=False
    )
    assert list(parameters.groups) == ["sigmas"]
    with torch.no_grad():
        parameters.groups["sigmas"].copy_(torch.tensor([0.5, -0.2, 0.1, 0.0]))
    moved = parameters.schedule().detach()
    assert not torch.allclose(moved, sigmas)
    plain = few_steps.adams_bashforth(moved, moved[:-1] * 1000)
    torch.testing.assert_close(parameters.form().velocity.detach(), plain.velocity)


def test_ssim_of_a_clip_with_itself_is_one_and_falls_with_noise():
    clip = torch.rand(1, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert frame_ssim(clip, clip) == pytest.approx(1)
    assert frame_ssim((clip + 0.3).clamp(0, 1), clip) < 0.99


ROOT = Path(__file__).parents[2]


def test_the_guide_is_written_from_the_results_that_stand_beside_it():
    results = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text(encoding="utf-8"))
    assert report(results) == (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
