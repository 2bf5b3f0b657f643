"""The linear form of a solver: the same numbers that the scheduler itself makes, and their derivatives."""

import copy

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from budc.compiler.rollouts.linear_form import linear_form
from budc.runtimes.sampling.schedulers import apply_schedule
from budc.schema.errors import UnsupportedModel

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SOLVERS = ["euler", "unipc", "dpm++"]

# The library's own, in DPM++ where it sets its timesteps.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def stepped(scheduler, schedule, noise, velocities):
    """Every state on the way, by the scheduler alone."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(schedule.steps)
    apply_schedule(scheduler, schedule.sigmas, schedule.timesteps)
    scheduler.set_begin_index(0)
    states = [noise]
    for timestep, velocity in zip(scheduler.timesteps, velocities, strict=True):
        states.append(scheduler.step(velocity, timestep, states[-1], return_dict=False)[0])
    return states


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 9, 20])
def test_the_form_is_the_scheduler(toys, solver, steps):
    scheduler = toys.schedulers[solver]()
    schedule = toys.schedule(scheduler, steps)
    form = linear_form(scheduler, schedule.sigmas, schedule.timesteps)
    generator = torch.Generator().manual_seed(steps)
    noise = torch.randn(2, 3, 4, generator=generator)
    velocities = [torch.randn(2, 3, 4, generator=generator) for _ in range(steps)]
    for step, state in enumerate(stepped(scheduler, schedule, noise, velocities)):
        latents = form.latents(step, noise, velocities)
        torch.testing.assert_close(latents, state, atol=1e-6, rtol=1e-6)
        # Of a solver that looks ahead, a state would not be decided by the velocities before it.
        assert not form.velocity[step, step:].any()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_schedule_of_ones_own_is_followed_too(toys, solver):
    from budc.compiler.rollouts.schedule import NoiseSchedule

    scheduler = toys.schedulers[solver]()
    sigmas = torch.tensor([0.999, 0.9, 0.55, 0.5, 0.13, 0.0])
    schedule = NoiseSchedule.of(scheduler, sigmas.tolist(), (sigmas[:-1] * 1000).tolist())
    form = schedule.linear_form()
    noise, velocities = torch.ones(1, 2), [torch.full((1, 2), float(k * k)) for k in range(5)]
    torch.testing.assert_close(
        form.latents(5, noise, velocities), stepped(scheduler, schedule, noise, velocities)[-1]
    )


def test_the_scheduler_is_left_as_it_was(toys):
    scheduler = toys.schedulers["unipc"]()
    schedule = toys.schedule(scheduler, 7)
    before = copy.deepcopy(scheduler)
    linear_form(scheduler, schedule.sigmas[3:], schedule.timesteps[3:])
    assert torch.equal(scheduler.sigmas, before.sigmas)
    assert torch.equal(scheduler.timesteps, before.timesteps)
    assert scheduler.step_index == before.step_index


def test_without_leaves_out_the_last_velocity(toys):
    scheduler = toys.schedulers["unipc"]()
    schedule = toys.schedule(scheduler, 5)
    form = linear_form(scheduler, schedule.sigmas, schedule.timesteps)
    noise, velocities = torch.randn(2, 3), [torch.randn(2, 3) for _ in range(5)]
    rest = form.partial_latents(5, noise, velocities[:4])
    torch.testing.assert_close(
        rest + float(form.velocity[5, 4]) * velocities[4], form.latents(5, noise, velocities)
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradients_with_respect_to_sigmas_are_finite_differences(toys, solver):
    scheduler = toys.schedulers[solver]()
    schedule = toys.schedule(scheduler, 6)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    sigmas = torch.tensor(schedule.sigmas, dtype=torch.float64)

    def value(sigmas):
        form = linear_form(scheduler, sigmas.clone().requires_grad_(True), schedule.timesteps)
        return float((weights * torch.cat([form.start[:, None], form.velocity], 1)).sum().detach())

    leaf = sigmas.clone().requires_grad_(True)
    form = linear_form(scheduler, leaf, schedule.timesteps)
    (weights * torch.cat([form.start[:, None], form.velocity], 1)).sum().backward()
    assert torch.isfinite(leaf.grad).all()
    # Euler and DPM++ step in float32 whatever they are given, so that a narrow difference is noise.
    width, tolerance = (1e-6, 1e-5) if solver == "unipc" else (1e-3, 1e-3)
    for index in range(1, 6):
        ends = [sigmas.clone(), sigmas.clone()]
        ends[0][index] -= width
        ends[1][index] += width
        difference = (value(ends[1]) - value(ends[0])) / (2 * width)
        assert float(leaf.grad[index]) == pytest.approx(difference, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_differentiable_form_is_the_exact_one_but_for_its_terminal_value(toys, solver):
    scheduler = toys.schedulers[solver]()
    schedule = toys.schedule(scheduler, 6)
    exact = linear_form(scheduler, schedule.sigmas, schedule.timesteps)
    leaf = torch.tensor(schedule.sigmas, dtype=torch.float64, requires_grad=True)
    form = linear_form(scheduler, leaf, schedule.timesteps)
    assert form.velocity.requires_grad
    torch.testing.assert_close(form.velocity.detach(), exact.velocity, atol=1e-5, rtol=0)
    torch.testing.assert_close(form.start.detach(), exact.start, atol=1e-5, rtol=0)
    assert torch.isfinite(exact.velocity).all()


@pytest.mark.parametrize(
    "scheduler",
    [
        UniPCMultistepScheduler(**FLOW, thresholding=True),
        DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **FLOW, thresholding=True),
        DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **FLOW),
        FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True),
    ],
    ids=["unipc thresholding", "dpm++ thresholding", "sde-dpm++", "stochastic euler"],
)
def test_a_solver_that_is_not_linear_is_refused(toys, scheduler):
    schedule = toys.schedule(scheduler, 6)
    with pytest.raises(UnsupportedModel, match=type(scheduler).__name__) as caught:
        linear_form(scheduler, schedule.sigmas, schedule.timesteps)
    assert caught.value.remedy
