"""The linear form of a solver: the same numbers that the scheduler itself makes, and their derivatives."""

import copy
from functools import partial

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    LTXEulerAncestralRFScheduler,
    MiniMaxH3Scheduler,
    SASolverScheduler,
    SCMScheduler,
    UniPCMultistepScheduler,
)

from budc.compiler.rollouts.linear_form import linear_form
from budc.runtimes.sampling.schedulers import apply_schedule
from budc.schema.errors import UnsupportedModel

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SOLVERS = ["euler", "unipc", "dpm++"]

# The library's own, where DPM++ and DEIS set their timesteps.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_ implementation|wrap__ must):DeprecationWarning")


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


ACCEPTED = {
    "Euler": partial(FlowMatchEulerDiscreteScheduler, shift=3.0),
    "Euler, shifted by resolution": partial(FlowMatchEulerDiscreteScheduler, use_dynamic_shifting=True),
    "UniPC": partial(UniPCMultistepScheduler, **FLOW),
    "UniPC of order 1": partial(UniPCMultistepScheduler, **FLOW, solver_order=1),
    "DPM++": partial(DPMSolverMultistepScheduler, **FLOW),
    "DPM++ of order 3": partial(DPMSolverMultistepScheduler, **FLOW, solver_order=3),
    "DPM++, single-step, of order 1": partial(DPMSolverSinglestepScheduler, **FLOW, solver_order=1),
    "LTX, without its noise": partial(LTXEulerAncestralRFScheduler, eta=0.0),
}
"""On every schedule of flow matching from 1 to 0: one evaluation a step, no noise, straight paths."""

BELOW_ONE = {
    "UniPC of order 3": partial(UniPCMultistepScheduler, **FLOW, solver_order=3),
    "DPM++, single-step": partial(DPMSolverSinglestepScheduler, **FLOW, solver_order=2),
}
"""On schedules that begin below 1: at 1 the signal-to-noise ratio, by which they divide, is zero."""

REFUSED = {
    "UniPC bh1: it divides by the log-SNR, infinite at 0": (
        partial(UniPCMultistepScheduler, **FLOW, solver_type="bh1"), "no finite states from sigma 1.0 to 0.0",
    ),
    "UniPC of order 2 to the end": (
        partial(UniPCMultistepScheduler, **FLOW, lower_order_final=False), "no finite states from sigma 1.0 to 0.0",
    ),
    "DEIS: infinite at 0": (partial(DEISMultistepScheduler, **FLOW), "no finite states from sigma 1.0 to 0.0"),
    "Heun: two evaluations a step": (partial(FlowMatchHeunDiscreteScheduler), "evaluates the model 2 times a step"),
    "Heun on noise: two evaluations a step": (partial(HeunDiscreteScheduler), "evaluates the model 2 times a step"),
    "thresholding, UniPC": (partial(UniPCMultistepScheduler, **FLOW, thresholding=True), "thresholding"),
    "thresholding, DPM++": (partial(DPMSolverMultistepScheduler, **FLOW, thresholding=True), "thresholding"),
    "noise, Euler": (partial(FlowMatchEulerDiscreteScheduler, stochastic_sampling=True), "draws noise of its own"),
    "noise, SDE-DPM++": (
        partial(DPMSolverMultistepScheduler, **FLOW, algorithm_type="sde-dpmsolver++"), "draws noise of its own",
    ),
    "noise, LCM": (partial(FlowMatchLCMScheduler), "draws noise of its own"),
    "noise, LTX": (partial(LTXEulerAncestralRFScheduler), "draws noise of its own"),
    "noise, ancestral Euler": (partial(EulerAncestralDiscreteScheduler), "predict epsilon"),
    "epsilon, Euler": (partial(EulerDiscreteScheduler), "predict epsilon, not the velocity of flow matching"),
    "epsilon, UniPC": (partial(UniPCMultistepScheduler), "predict epsilon, not the velocity of flow matching"),
    "epsilon, DPM++": (partial(DPMSolverMultistepScheduler), "predict epsilon, not the velocity of flow matching"),
    "epsilon, EDM": (partial(EDMEulerScheduler), "predict epsilon, not the velocity of flow matching"),
    "epsilon, DDIM": (partial(DDIMScheduler), "predict epsilon, not the velocity of flow matching"),
    "epsilon, SA": (partial(SASolverScheduler), "predict epsilon, not the velocity of flow matching"),
    "v": (partial(UniPCMultistepScheduler, prediction_type="v_prediction"), "predict v_prediction, not the velocity"),
    "sample": (partial(DPMSolverMultistepScheduler, prediction_type="sample"), "predict sample, not the velocity"),
    "velocities on variance-preserving paths, UniPC": (
        partial(UniPCMultistepScheduler, prediction_type="flow_prediction"), "straight paths of flow matching",
    ),
    "velocities on variance-preserving paths, DPM++": (
        partial(DPMSolverMultistepScheduler, prediction_type="flow_prediction"), "straight paths of flow matching",
    ),
    "steps in timesteps, not in sigmas": (partial(MiniMaxH3Scheduler), "straight paths of flow matching"),
    "no sigmas to set": (partial(IPNDMScheduler), "cannot run on a given schedule"),
    "a schedule of its own": (partial(SCMScheduler, prediction_type="flow_prediction"), "cannot run on a given schedule"),
}  # fmt: skip
"""And why."""


def evenly(first):
    """Six even steps from `first` to 0, as sigmas and timesteps."""
    sigmas = [first * (6 - step) / 6 for step in range(7)]
    return sigmas, [1000 * sigma for sigma in sigmas[:-1]]


@pytest.mark.parametrize(
    ("make", "first"),
    [*((make, 1.0) for make in ACCEPTED.values()), *((make, 0.9999) for make in BELOW_ONE.values())],
    ids=[*ACCEPTED, *BELOW_ONE],
)
def test_flow_matching_schedulers_that_are_accepted(make, first):
    form = linear_form(make(), *evenly(first))
    # A constant velocity is followed exactly, wherever the path began.
    torch.testing.assert_close(form.start, torch.ones(7, dtype=torch.float64), atol=1e-6, rtol=0)
    straight = torch.tensor(evenly(first)[0], dtype=torch.float64) - first
    torch.testing.assert_close(form.velocity.sum(1), straight, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", BELOW_ONE.values(), ids=list(BELOW_ONE))
def test_a_scheduler_that_is_infinite_at_one_is_refused_there_with_a_remedy_that_works(make):
    scheduler = make()
    with pytest.raises(UnsupportedModel, match=r"no finite states from sigma 1\.0 to 0\.0") as caught:
        linear_form(scheduler, *evenly(1.0))
    assert "begin the schedule at 0.9999 instead of 1.0" in caught.value.remedy
    sigmas, timesteps = evenly(1.0)
    assert linear_form(scheduler, [0.9999, *sigmas[1:]], timesteps).velocity.isfinite().all()


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_schedulers_that_are_refused_and_why(make, reason):
    scheduler = make()
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        linear_form(scheduler, *evenly(1.0))
    assert str(caught.value).startswith(type(scheduler).__name__)
    assert "instead of" not in caught.value.remedy, "a later begin does not help"
    if "use flow-matching Euler, or UniPC or DPM++ with flow sigmas" in caught.value.remedy:
        for suggested in ("Euler", "UniPC", "DPM++"):
            linear_form(ACCEPTED[suggested](), *evenly(1.0))


def test_a_check_for_noise_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    linear_form(ACCEPTED["UniPC"](), *evenly(1.0))
    assert torch.equal(torch.rand(3), expected)
