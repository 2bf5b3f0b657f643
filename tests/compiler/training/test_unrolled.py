"""The unrolled sampler and its parameters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.search import Candidate
from budc.compiler.selection.alignment import aligned
from budc.compiler.selection.scores import policy_of
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.unrolled import differentiable_rollout
from budc.schema.mask import StepMask
from budc.schema.predictor import MAX_COEFFICIENT
from budc.schema.sigmas import Sigmas


def policy(toy, compute=(0, 2, 5), payload="velocity", masks=None):
    steps = toy.schedule.steps
    masks = masks or (StepMask.from_compute_steps(steps, compute),)
    candidate = Candidate(masks, "tracked", payload)
    tree = toy.tree()
    return policy_of(tree, candidate, tree.roll_out([candidate])[0].rows)


def parameters(toy, start, **options):
    options = {"train_sigmas": True} | options
    return PolicyParameters(start, toy.scheduler, toy.schedule.sigmas, toy.schedule.timesteps, **options)


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("payload", ["velocity", "trunk-residual"])
@pytest.mark.parametrize("apart", [False, True])
def test_unrolled_and_policy_rollout_agree(bench, solver, payload, apart):
    toy = bench(steps=7, samples=4, solver=solver)
    masks = [StepMask.from_compute_steps(7, steps) for steps in ((0, 2, 5), (0, 1, 4, 6))]
    start = policy(toy, payload=payload, masks=tuple(masks) if apart else (masks[0],))
    expected = rollout_policy(toy.over(), toy.form, start)
    fixed = differentiable_rollout(
        toy.network.denoiser, parameters(toy, start, train_sigmas=False), toy.network.conditions
    )
    torch.testing.assert_close(fixed.detach(), expected, atol=1e-5, rtol=1e-5)
    # A schedule is written in float32.
    trained = parameters(toy, start)
    learned = differentiable_rollout(toy.network.denoiser, trained, toy.network.conditions)
    end, schedule = aligned(start, trained)
    form = linear_form(toy.scheduler, schedule.sigmas, schedule.timesteps)
    torch.testing.assert_close(learned.detach(), rollout_policy(toy.over(), form, end), atol=1e-3, rtol=1e-3)
    assert learned.requires_grad


def test_gradients_reach_every_parameter_and_are_finite_differences(bench):
    toy = bench(steps=6, samples=3)
    trained = parameters(toy, policy(toy, payload="trunk-residual"))
    assert set(trained.groups) == {"coefficients", "sigmas"}

    def loss():
        latents = differentiable_rollout(toy.network.denoiser, trained, toy.network.conditions)
        return (latents - toy.run.latents).double().square().mean()

    loss().backward()
    for tensor in trained.groups.values():
        assert torch.isfinite(tensor.grad).all()
        # All but one: an unconditional residual at pure noise is zero here.
        assert (tensor.grad != 0).sum() >= len(tensor) - 1
        for index in range(len(tensor)):
            ends = []
            for step in (-2e-3, 2e-3):
                with torch.no_grad():
                    tensor[index] += step
                    ends.append(float(loss()))
                    tensor[index] -= step
            difference = (ends[1] - ends[0]) / 4e-3
            scale = float(tensor.grad.abs().max())
            assert float(tensor.grad[index]) == pytest.approx(difference, rel=0.05, abs=0.02 * scale)


def test_sigmas_that_are_not_trained_stay(bench):
    toy = bench(steps=6)
    start = policy(toy)
    assert set(parameters(toy, start, train_sigmas=False).groups) == {"coefficients"}


def test_parameters_start_at_the_policy_and_its_schedule(bench):
    toy = bench(steps=7, solver="unipc")
    start = policy(toy)
    initial = parameters(toy, start)
    assert initial.schedule().tolist() == pytest.approx(toy.schedule.sigmas, abs=1e-6)
    again, schedule = aligned(start, initial)
    assert schedule.sigmas == pytest.approx(toy.schedule.sigmas, abs=1e-6)
    assert schedule.timesteps == pytest.approx(toy.schedule.timesteps, abs=1.0)
    assert again.payload == start.payload
    rows = {name: branch.predictor for branch in start.branches for name in branch.names}
    for branch in again.branches:
        for name in branch.names:
            for row, expected in zip(branch.predictor, rows[name], strict=True):
                assert row == pytest.approx(expected, abs=1e-9)


def test_aligned_coefficients_stay_within_what_a_policy_may_hold(bench):
    toy = bench(steps=6)
    start = policy(toy)
    trained = parameters(toy, start)
    with torch.no_grad():
        trained.groups["coefficients"].fill_(1000.0)
    rows = [row for branch in aligned(start, trained)[0].branches for row in branch.predictor]
    assert max(abs(value) for row in rows for value in row) == MAX_COEFFICIENT


@pytest.fixture(scope="module")
def schedules():
    """(sigmas, timesteps) of a solver of 8 steps, and a policy on them, without a model."""
    from diffusers import UniPCMultistepScheduler

    from budc.compiler.rollouts.policies import full_policy

    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(8)
    times = [float(value) for value in scheduler.timesteps]
    return full_policy(8, ("only",)), scheduler, scheduler.sigmas.tolist(), times


@settings(max_examples=15, deadline=None)
@given(offsets=st.lists(st.floats(-4, 4), min_size=8, max_size=8))
def test_trained_sigmas_are_monotone_with_both_ends_pinned(schedules, offsets):
    start, scheduler, sigmas, timesteps = schedules
    trained = PolicyParameters(start, scheduler, sigmas, timesteps, True)
    with torch.no_grad():
        trained.groups["sigmas"].copy_(torch.tensor(offsets, dtype=torch.float64))
    levels = trained.schedule().detach()
    assert levels[0] == sigmas[0]
    assert levels[-1] == sigmas[-1] == 0.0
    assert (levels.diff() < 0).all()
    _, schedule = aligned(start, trained)
    # What an artifact holds, in float32, is valid, and a solver has a finite form on it.
    assert tuple(Sigmas.of(schedule.sigmas)) == schedule.sigmas
    assert torch.isfinite(linear_form(scheduler, schedule.sigmas, schedule.timesteps).velocity).all()
    form = trained.form()
    form.velocity.square().sum().backward()
    assert torch.isfinite(trained.groups["sigmas"].grad).all()


@pytest.mark.parametrize(("solver", "first"), [("euler", 1.0), ("unipc", 1 - 1e-6)])
def test_a_schedule_from_pure_noise_can_be_trained_and_is_deployed_as_it_was(bench, solver, first):
    # FLUX's begins at exactly 1, where the log-SNR is infinite.
    toy = bench(steps=7, samples=4, solver=solver)
    sigmas = [1.0, *toy.schedule.sigmas[1:]]
    timesteps = [sigma * 1000 for sigma in sigmas[:-1]]
    start = policy(toy)
    trained = PolicyParameters(start, toy.scheduler, sigmas, timesteps, train_sigmas=True)
    latents = differentiable_rollout(toy.network.denoiser, trained, toy.network.conditions)
    latents.square().sum().backward()
    assert torch.isfinite(trained.groups["sigmas"].grad).all()
    end, schedule = aligned(start, trained)
    assert schedule.sigmas[0] == pytest.approx(first, abs=1e-7)
    form = linear_form(toy.scheduler, schedule.sigmas, schedule.timesteps)
    torch.testing.assert_close(latents.detach(), rollout_policy(toy.over(), form, end), atol=1e-3, rtol=1e-3)
