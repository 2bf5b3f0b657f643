"""Coefficients along a trajectory: the solve, its basis, and policies that it makes exact."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import guide
from budc.compiler.fitting.trajectory import (
    RIDGE,
    differences,
    fit_trajectory,
    from_differences,
    solve_trajectory,
    to_differences,
)
from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.search import Candidate
from budc.compiler.selection.scores import policy_of
from budc.runtimes.sampling.trunk import combine

ROWS = st.lists(st.floats(-8, 8), min_size=1, max_size=3)


@given(ROWS)
def test_the_basis_of_differences_is_there_and_back(row):
    assert from_differences(to_differences(row)).tolist() == pytest.approx(row, abs=1e-12)


@given(ROWS)
def test_a_row_means_the_same_in_either_basis(row):
    residuals = list(torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    basis = differences(residuals[: len(row)])
    combined = sum(value * direction for value, direction in zip(to_differences(row), basis, strict=True))
    torch.testing.assert_close(combined, combine(row, residuals[: len(row)]))


@pytest.mark.parametrize("ridge", [RIDGE, 0.5])
def test_the_solve_is_weighted_ridge_regression(ridge):
    generator = torch.Generator().manual_seed(5)
    target = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    target[2] *= 50
    columns = torch.randn(3, 4, 7, generator=generator, dtype=torch.float64)
    prior = torch.randn(3, generator=generator, dtype=torch.float64)
    weights = target.square().mean(1).rsqrt()
    roots = (weights / weights.mean()).sqrt()
    left = (columns * roots[:, None]).flatten(1).T
    scale = left.square().sum(0).mean()
    penalty = (ridge * scale).sqrt() * torch.eye(3, dtype=torch.float64)
    expected = torch.linalg.lstsq(
        torch.cat([left, penalty]), torch.cat([(target * roots[:, None]).flatten(), penalty @ prior])
    ).solution
    torch.testing.assert_close(
        solve_trajectory(target, columns, prior, ridge), expected, rtol=1e-9, atol=1e-9
    )


def test_a_prompt_that_is_far_off_does_not_own_the_fit():
    columns = torch.ones(1, 3, 5, dtype=torch.float64)
    target = torch.tensor([1.0, 1.0, 100.0], dtype=torch.float64)[:, None].expand(3, 5).contiguous()
    move = float(solve_trajectory(target, columns, torch.zeros(1, dtype=torch.float64), ridge=0.0))
    # Weighted by 1, 1 and 1/100: far from 34, the mean.
    assert move == pytest.approx((1 + 1 + 1) / (1 + 1 + 0.01))


def test_columns_that_are_zero_to_the_last_bit_move_nothing_but_back_to_the_prior():
    prior = torch.tensor([0.5, -0.25], dtype=torch.float64)
    target = torch.ones(3, 4)
    assert solve_trajectory(target, torch.zeros(2, 3, 4), prior).tolist() == pytest.approx([0.5, -0.25])


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("linear", [True, False])
def test_what_can_be_reached_is_reached(linear, rescaled):
    """Two branches reuse; the target is what some coefficients give, head and guidance bent or not."""
    generator = torch.Generator().manual_seed(2)
    residuals = {name: [torch.randn(3, 9, generator=generator) for _ in range(2)] for name in "ab"}
    weights = {"a": 2.0, "b": -1.0}
    goal = {"a": (1.1, -0.2), "b": (0.8, 0.3)}

    def head(branch, residual):
        return residual if linear else residual + 0.05 * torch.sin(residual)

    def guidance(velocities):
        total = guide(weights, velocities)
        length = velocities["a"].norm(dim=-1, keepdim=True) / total.norm(dim=-1, keepdim=True)
        return total * length if rescaled else total

    def guided(rows):
        return guidance({b: head(b, combine(rows[b], residuals[b])) for b in weights})

    rows = fit_trajectory(
        residuals,
        {"a": (1.0, 0.0), "b": (1.0, 0.0)},
        head,
        guidance,
        lambda now: guided(goal) - now,
        linear=linear and not rescaled,
    )
    prior_error = (guided({"a": (1.0, 0.0), "b": (1.0, 0.0)}) - guided(goal)).norm()
    assert (guided(rows) - guided(goal)).norm() < 2e-3 * prior_error
    if linear and not rescaled:
        for branch, row in goal.items():
            assert rows[branch] == pytest.approx(row, abs=2e-3)


def test_two_terms_reproduce_the_reference_run_where_two_terms_suffice(toys, bench):
    """Velocities that turn in a plane: once two were computed, every further one is a combination of them."""
    sigmas = torch.linspace(1, 0, 11)
    schedule = NoiseSchedule.of(toys.schedulers["euler"](), sigmas.tolist(), (sigmas[:-1] * 1000).tolist())
    generator = torch.Generator().manual_seed(0)
    conditions = Conditioning(
        {"only": torch.randn(6, 2, 5, generator=generator)}, torch.randn(6, 5, generator=generator)
    )
    toy = bench(schedule=schedule, denoiser=toys.ringing(), conditions=conditions)
    tree = toy.tree()
    errors, policies = {}, {}
    for rule in ("plain", "gram", "tracked"):
        candidate = Candidate.of(10, (0, 3), rule, "velocity")
        (rollout,) = tree.roll_out([candidate])
        errors[rule] = sum(rollout.errors)
        policies[rule] = policy_of(tree, candidate, rollout.rows)
    # What plain reuse leaves after step 3 is large; the ridge pulls two terms off by a little, no more.
    assert errors["tracked"] < 1e-4 * errors["plain"]
    assert errors["tracked"] < errors["gram"]
    assert sum(policies["tracked"].branches[0].mask) == 2
    latents = rollout_policy(toy.over(), toy.form, policies["tracked"])
    assert latent_errors(latents, toy.run.latents) == pytest.approx(list(rollout.errors))
    assert max(rollout.errors) < 1e-3
