"""How final latents change with a policy's coefficients."""

from dataclasses import replace

import pytest
import torch

from budc.compiler.rollouts import sensitivity
from budc.compiler.rollouts.directions import directions, moved
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.sensitivity import forwards_of_normal_equations, normal_equations
from budc.compiler.search import Candidate
from budc.compiler.selection.scores import policy_of
from budc.schema.mask import StepMask
from budc.schema.policy import Policy


@pytest.fixture(params=["velocity", "trunk-residual"])
def payload(request):
    return request.param


@pytest.fixture
def fitted(bench, payload):
    """Return (toy bench, policy with fitted coefficients), with one mask for both branches or one for each."""

    def fitted(solver="euler", separate=False, **options):
        toy = bench(steps=9, samples=4, solver=solver, **options)
        masks = [(0, 3, 5, 6)] if not separate else [(0, 3, 5, 6), (0, 2, 5, 7)]
        candidate = Candidate(
            tuple(StepMask.of([step in mask for step in range(9)]) for mask in masks), "tracked", payload
        )
        tree = toy.tree()
        (rollout,) = tree.roll_out([candidate])
        return toy, policy_of(tree, candidate, rollout.rows)

    return fitted


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_columns_are_what_moves_of_the_policy_change(fitted, monkeypatch, solver, separate):
    """Beside whole rollouts of policies that were moved by less, in float64."""
    monkeypatch.setattr(sensitivity, "MOVE", 1e-2)
    toy, policy = fitted(solver, separate)
    branches, network = toy.network.branches, toy.over()
    found = normal_equations(network, toy.form, policy, toy.run.latents)
    base = rollout_policy(toy.over(), toy.form, policy).double()
    size = 1e-3
    columns = torch.stack(
        [
            (
                rollout_policy(toy.over(), toy.form, moved(policy, branches, [(along, size)])).double() - base
            ).flatten(1)
            / size
            for along in directions(policy, branches)
        ]
    )
    errors = (toy.run.latents.double() - base).flatten(1)
    for prompt, own in enumerate(found):
        expected = columns[:, prompt] @ columns[:, prompt].T
        scale = expected.diagonal().max()
        assert torch.allclose(
            torch.tensor(own.curvature, dtype=torch.float64), expected, atol=float(0.05 * scale)
        )
        assert own.error == pytest.approx(float(errors[prompt] @ errors[prompt]), rel=1e-4)
        slope = columns[:, prompt] @ errors[prompt]
        assert torch.allclose(
            torch.tensor(own.slope, dtype=torch.float64), slope, atol=float(0.05 * slope.abs().max())
        )


@pytest.mark.parametrize("separate", [False, True])
def test_it_costs_what_is_said(fitted, separate):
    toy, policy = fitted(separate=separate)
    network = toy.over()
    normal_equations(network, toy.form, policy, toy.run.latents)
    assert network.forwards == 4 * forwards_of_normal_equations(policy, network.branches)


def test_prompts_can_be_measured_apart(fitted):
    toy, policy = fitted()
    together = normal_equations(toy.over(), toy.form, policy, toy.run.latents)
    apart = normal_equations(
        type(toy.network)(toy.network.denoiser, toy.network.conditions.part(2, 4)),
        toy.form,
        policy,
        toy.run.part(2, 4).latents,
    )
    for one, other in zip(together[2:], apart, strict=True):
        assert one.error == pytest.approx(other.error)
        # Sizes of moves depend on who is measured together; what is linear does not.
        assert one.slope == pytest.approx(other.slope, rel=0.05, abs=0.05 * max(map(abs, one.slope)))


def test_a_fork_goes_on_as_the_whole_rollout_does(fitted):
    """Where no coefficient moves, final latents do not either: nothing of the cache is lost or taken twice."""
    toy, policy = fitted()
    branches, network = toy.network.branches, toy.over()
    base = sensitivity.ForkedTrajectory(toy.form, network.conditions.noise, policy, branches)
    sensitivity._to_end(network, [base])
    assert torch.equal(base.latents, rollout_policy(toy.over(), toy.form, policy))
    for along in directions(policy, branches):
        fork = base.fork(along.first, policy)
        sensitivity._to_end(network, [fork])
        assert torch.equal(fork.latents, base.latents)


def test_a_term_that_is_nothing_changes_nothing(bench, toys):
    """What is cached is the same at every step, so differences are zero."""
    denoiser, conditions = toys.ringing(frequency=0.0), toys.conditions(3, ("only",), (2, 3))
    conditions = replace(conditions, noise=conditions.noise[:, 0])
    toy = bench(steps=6, samples=3, denoiser=denoiser, conditions=conditions)
    policy = Policy.of("velocity", {"only": [(), (1.0,), (), (0.7, 0.2), (), (0.7, 0.1, 0.1)]})
    found = normal_equations(toy.over(), toy.form, policy, toy.run.latents)
    for at, along in enumerate(directions(policy, ["only"])):
        changes = [own.curvature[at][at] for own in found]
        assert max(changes) < 1e-9 if along.term else min(changes) > 1e-4
