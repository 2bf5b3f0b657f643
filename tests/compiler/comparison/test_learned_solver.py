"""Few-step solvers with learned timesteps and weights, and how they are rolled out."""

from types import SimpleNamespace

import msgspec
import pytest

torch = pytest.importorskip("torch")

from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: E402

from budc.compiler.comparison.fitted import Fitted, LearnedSolver  # noqa: E402
from budc.compiler.comparison.learned_solver import SolverParameters, learned_solver, of_scheduler  # noqa: E402
from budc.compiler.comparison.rivals import CannotRun  # noqa: E402

EULER = of_scheduler(FlowMatchEulerDiscreteScheduler())


@pytest.fixture
def parameters():
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    return SolverParameters(EULER, sigmas, sigmas[:-1] * 1000, branches=2)


def test_untrained_parameters_are_the_solver_itself(parameters):
    assert parameters.forwards == 4 * 2
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    plain = EULER(sigmas, sigmas[:-1] * 1000)
    torch.testing.assert_close(
        parameters.form().velocity, plain.velocity, rtol=0, atol=2e-6
    )  # it ends at 1e-6
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
    torch.testing.assert_close(change, expected, rtol=0, atol=2e-6)


def test_the_form_is_differentiable_in_both_groups(parameters):
    form = parameters.form()
    (form.velocity.square().sum() + form.timesteps.sum()).backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in parameters.groups.values())


def test_best_timesteps_leave_the_solver_what_it_is():
    sigmas = torch.tensor([1.0, 0.7, 0.5, 0.1, 0.0], dtype=torch.float64)
    parameters = SolverParameters(EULER, sigmas, sigmas[:-1] * 1000, branches=2, coefficients=False)
    assert list(parameters.groups) == ["sigmas"]
    with torch.no_grad():
        parameters.groups["sigmas"].copy_(torch.tensor([0.5, -0.2, 0.1, 0.0]))
    moved = parameters.schedule().detach()
    assert not torch.allclose(moved, sigmas)
    plain = EULER(moved, moved[:-1] * 1000)
    torch.testing.assert_close(parameters.form().velocity.detach(), plain.velocity, rtol=0, atol=2e-6)


def test_a_learned_solver_is_kept_as_plain_numbers(parameters):
    with torch.no_grad():
        parameters.groups["coefficients"][2] = torch.tensor([0.1, -0.2, 0.0])
        form = parameters.form()
        solver = LearnedSolver.of(form, parameters.schedule())
    again = msgspec.json.decode(msgspec.json.encode(Fitted(solver=solver)), type=Fitted).solver.form()
    for kept, made in (
        (again.start, form.start),
        (again.velocity, form.velocity),
        (again.timesteps, form.timesteps),
    ):
        assert torch.equal(kept, made)


def test_one_prompt_teaches_nothing(tmp_path):
    setting = SimpleNamespace(
        name="tiny",
        scheduler=FlowMatchEulerDiscreteScheduler(),
        sampler_of=lambda nfe: SimpleNamespace(sigmas=(1.0, 0.5, 0.0), timesteps=(1000.0, 500.0)),
        calibration=[object()],
        branches=("cond",),
    )
    with pytest.raises(CannotRun, match="two calibration prompts"):
        learned_solver(setting, 2, 0, tmp_path, weights=True)
