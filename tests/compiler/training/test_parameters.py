"""Timesteps of trained sigmas follow the scheduler's own, which many schedulers round."""

import pytest
import torch

from budc.compiler.rollouts.policies import full_policy
from budc.compiler.training.parameters import PolicyParameters

STEPS = 8


@pytest.fixture(params=["euler", "unipc"])
def rounded(request, bench):
    """Parameters of plain steps on timesteps that are rounded to tens, and these timesteps."""
    toy = bench(steps=STEPS, samples=2, solver=request.param)
    timesteps = [float(round(timestep, -1)) for timestep in toy.schedule.timesteps]
    assert timesteps != list(toy.schedule.timesteps)
    policy = full_policy(STEPS, toy.network.branches)
    return PolicyParameters(
        policy, toy.scheduler, toy.schedule.sigmas, timesteps, True, first_steps=[3]
    ), timesteps


def moved(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        parameters.groups["sigmas"].copy_(3 * torch.randn(STEPS, generator=generator, dtype=torch.float64))


def test_a_training_starts_from_the_timesteps_of_the_policy(rounded):
    parameters, timesteps = rounded
    assert parameters.form().timesteps.detach().tolist() == pytest.approx(timesteps, abs=1e-9)
    assert list(parameters.noise_schedule().timesteps) == pytest.approx(timesteps, abs=1e-3)


def test_timesteps_fall_wherever_sigmas_go(rounded):
    parameters, timesteps = rounded
    for seed in range(20):
        moved(parameters, seed)
        own = parameters.form().timesteps.detach()
        assert (own.diff() <= 0).all()
        assert float(own[-1]) > 0
        # Around another denoiser's first step nothing moves.
        assert own[2:4].tolist() == pytest.approx(timesteps[2:4], abs=1e-9)
        written = torch.tensor(parameters.noise_schedule().timesteps)
        torch.testing.assert_close(written, own.float(), atol=2e-3, rtol=0)


def test_between_two_of_the_scheduler_s_sigmas_timesteps_are_in_proportion(rounded):
    parameters, timesteps = rounded
    with torch.no_grad():
        # A longer first gap puts the second sigma between the scheduler's second and third.
        parameters.groups["sigmas"][0] = 0.2
    start, moved_to = parameters.schedule().detach(), parameters.form().timesteps.detach()
    own = (
        PolicyParameters(
            parameters.policy, parameters.scheduler, parameters.sigmas, parameters.timesteps, True
        )
        .schedule()
        .detach()
    )
    share = float((own[1] - start[1]) / (own[1] - own[2]))
    assert 0 < share < 1
    assert float(moved_to[1]) == pytest.approx(timesteps[1] + share * (timesteps[2] - timesteps[1]), abs=1e-9)


def test_gradients_go_through_timesteps(rounded):
    parameters, _ = rounded
    (gradient,) = torch.autograd.grad(parameters.form().timesteps.sum(), [parameters.groups["sigmas"]])
    assert gradient.abs().max() > 0
