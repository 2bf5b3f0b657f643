"""With a preconditioner, coefficients move along directions, in units of what these change."""

import pytest
import torch

from budc.compiler.fitting.gauss_newton import NormalEquations
from budc.compiler.rollouts.directions import directions, moved
from budc.compiler.rollouts.sensitivity import normal_equations
from budc.compiler.search.space import Candidate
from budc.compiler.selection.alignment import PRECONDITIONED_RATES, aligned
from budc.compiler.selection.scores import policy_of
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.preconditioner import DAMPING, Preconditioner
from budc.compiler.training.trainer import TrainingSettings, train
from budc.schema.mask import StepMask


def random_equations(prompts, along, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-3, 3, along)[:, None]
    return [
        NormalEquations.of(
            scales * torch.randn(along, 40, generator=generator), torch.randn(40, generator=generator)
        )
        for _ in range(prompts)
    ]


@pytest.fixture
def refined(bench):
    """A toy, a policy whose branches have other masks, its directions, and its normal equations."""
    toy = bench(steps=9, samples=4)
    masks = tuple(StepMask.from_compute_steps(9, steps) for steps in ((0, 2, 5), (0, 3, 6)))
    candidate = Candidate(masks, "tracked", "velocity")
    tree = toy.tree()
    policy = policy_of(tree, candidate, tree.roll_out([candidate])[0].rows)
    equations = normal_equations(toy.over(), toy.form, policy, toy.run.latents)
    return toy, policy, directions(policy, toy.network.branches), equations


def parameters(toy, policy, preconditioner):
    schedule = toy.schedule
    return PolicyParameters(
        policy, toy.scheduler, schedule.sigmas, schedule.timesteps, False, preconditioner=preconditioner
    )


def test_all_units_change_the_final_latents_by_about_their_error():
    """Directions that differ a millionfold in what they change, in one unit each."""
    equations = random_equations(5, 6)
    units = Preconditioner.of(range(6), equations).units
    mean = sum(torch.tensor(own.curvature, dtype=torch.float64) / own.error for own in equations) / 5
    changed = units.T @ mean @ units
    torch.testing.assert_close(changed, torch.diag(changed.diagonal()), atol=1e-8, rtol=0)
    assert ((changed.diagonal() > 0.5) & (changed.diagonal() <= 1)).all()


def test_directions_that_only_undo_one_another_move_little():
    """Of two directions with one effect, their difference changes nothing: it is damped."""
    column = torch.randn(1, 30, generator=torch.Generator().manual_seed(1))
    units = Preconditioner.of(range(2), [NormalEquations.of(column.repeat(2, 1), column[0])]).units
    difference, both = units[:, 0], units[:, 1]
    assert float(difference.sum()) == pytest.approx(0, abs=1e-6)
    assert float(difference.norm()) == pytest.approx(DAMPING**-0.5, rel=1e-6)
    assert float(both.norm()) == pytest.approx((2 + DAMPING) ** -0.5, rel=1e-6)


def test_a_direction_that_changes_nothing_does_not_move():
    columns = torch.randn(3, 30, generator=torch.Generator().manual_seed(2))
    columns[1] = 0
    equations = [NormalEquations.of(columns, torch.ones(30)), NormalEquations.of(columns, torch.zeros(30))]
    units = Preconditioner.of(range(3), equations).units
    assert units.isfinite().all()
    assert units[1].tolist() == [0, 0, 0]
    assert Preconditioner.of(range(3), [equations[1]]).units.abs().max() == 0


def test_a_training_starts_from_the_policy(refined):
    toy, policy, along, equations = refined
    given = parameters(toy, policy, Preconditioner.of(along, equations))
    assert len(given.groups["coefficients"]) == len(along)
    start, _ = aligned(policy, given)
    for branch in toy.network.branches:
        for row, own in zip(
            start.for_branch(branch).predictor, policy.for_branch(branch).predictor, strict=True
        ):
            assert row == pytest.approx(own, abs=1e-12)


def test_rows_move_along_the_directions(refined):
    toy, policy, along, equations = refined
    preconditioner = Preconditioner.of(along, equations)
    given = parameters(toy, policy, preconditioner)
    moves = 0.005 * torch.randn(len(along), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        given.groups["coefficients"].copy_(moves)
    trained, _ = aligned(policy, given)
    sizes = (preconditioner.units @ moves).tolist()
    expected = moved(policy, toy.network.branches, list(zip(along, sizes, strict=True)))
    assert expected != policy
    for branch in toy.network.branches:
        rows = zip(trained.for_branch(branch).predictor, expected.for_branch(branch).predictor, strict=True)
        for row, own in rows:
            assert row == pytest.approx(own, abs=1e-9)


def test_a_branch_moves_by_itself_too(refined):
    """Along the directions that it has, and in the same units."""
    toy, policy, along, equations = refined
    preconditioner = Preconditioner.of(along, equations)
    given = parameters(toy, policy, preconditioner)
    assert given.groups["branches"].shape == (2, len(along))
    generator = torch.Generator().manual_seed(4)
    moves = 0.005 * torch.randn(len(along), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        given.groups["branches"][1].copy_(moves)
    trained, _ = aligned(policy, given)
    first, second = toy.network.branches
    sizes = (preconditioner.units @ moves).tolist()
    expected = moved(policy, toy.network.branches, list(zip(along, sizes, strict=True)))
    for branch, other in ((first, policy), (second, expected)):
        rows = zip(trained.for_branch(branch).predictor, other.for_branch(branch).predictor, strict=True)
        for row, own in rows:
            assert row == pytest.approx(own, abs=1e-9)


def test_without_a_preconditioner_or_with_one_branch_there_are_no_moves_of_branches(refined, bench, toys):
    toy, policy, _, _ = refined
    assert set(parameters(toy, policy, None).groups) == {"coefficients"}
    alone = bench(steps=9, samples=4, denoiser=toys.toy(weights={"cond": 1.0}))
    candidate = Candidate.of(9, (0, 2, 5), "tracked", "velocity")
    tree = alone.tree()
    single = policy_of(tree, candidate, tree.roll_out([candidate])[0].rows)
    along = directions(single, alone.network.branches)
    equations = normal_equations(alone.over(), alone.form, single, alone.run.latents)
    assert set(parameters(alone, single, Preconditioner.of(along, equations)).groups) == {"coefficients"}


def test_a_training_killed_after_an_epoch_ends_the_same_to_the_last_bit(refined, tmp_path, monkeypatch):
    toy, policy, along, equations = refined
    training_set = TrainingSet(toy.network.conditions, toy.run.latents)

    def trained(folder):
        given = parameters(toy, policy, Preconditioner.of(along, equations))
        settings = TrainingSettings(2, seed=0, batch=2, rates=PRECONDITIONED_RATES)
        with Journal(tmp_path / folder, "training") as journal:
            return train(
                toy.network.denoiser, given, training_set, training_set, settings, journal, "align"
            ).values

    expected, put = trained("undisturbed"), Journal.put

    def stopping(self, key, value):
        put(self, key, value)
        if key.endswith("epoch 1"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", stopping)
    with pytest.raises(KeyboardInterrupt):
        trained("killed")
    monkeypatch.setattr(Journal, "put", put)
    result = trained("killed")
    assert result.keys() == expected.keys() == {"coefficients", "branches"}
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    assert expected["branches"].abs().max() > 0
