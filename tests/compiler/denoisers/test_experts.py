"""Denoisers that share a run, on formulas: each with steps, residuals and guidance of its own."""

import sys

import pytest
import torch

import budc
from budc.compiler.denoisers.experts import ExpertSwitch, all_run
from budc.compiler.fitting.gram import mean_gram, segment_errors
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.search import ALGORITHMS, Candidate
from budc.compiler.selection.alignment import aligned
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.scores import policy_of
from budc.compiler.storage.journal import Journal
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.unrolled import differentiable_rollout
from budc.runtimes.sampling.step_plan import plan_branch
from budc.schema.errors import BudgetImpossible, SemanticsViolation, UsageError
from budc.schema.mask import StepMask

BOUNDARY = 800.0


@pytest.fixture
def pair(toys):
    """Two toy denoisers; the second has weaker guidance."""
    first, second = toys.toy(), toys.toy(weights={"cond": 1.5, "uncond": -0.5})
    return ExpertSwitch([first, second], [BOUNDARY])


def test_each_network_has_its_steps_and_its_guidance(pair):
    first, second = pair.denoisers
    latents, condition = torch.randn(2, 3), torch.zeros(2, 3)
    for timestep, network, other in (
        (1000.0, first, second),
        (BOUNDARY, first, second),
        (799.9, second, first),
    ):
        calls = len(network.calls), len(other.calls)
        pair.compute(latents, torch.tensor(timestep), condition)
        assert (len(network.calls), len(other.calls)) == (calls[0] + 1, calls[1])
        velocities = {"cond": latents, "uncond": condition}
        guided = pair.guide(velocities, torch.tensor(timestep))
        assert torch.equal(guided, network.guide(velocities, torch.tensor(timestep)))
    assert pair.branches == ("cond", "uncond")
    assert pair.first_steps([1000, 900, 800, 799, 10]) == (3,)
    assert pair.first_steps(torch.tensor([1000.0, 800.0])) == (2,)
    assert all_run(pair, [800, 799])
    assert not all_run(pair, [1000, 800])
    assert not all_run(pair, [799, 10])


def test_three_networks(toys):
    three = ExpertSwitch([toys.toy(), toys.toy(), toys.toy()], [800, 300])
    assert three.first_steps([1000, 700, 500, 200]) == (1, 3)
    assert not all_run(three, [1000, 200])
    for timestep, index in ((800.0, 0), (799.0, 1), (300.0, 1), (299.0, 2)):
        assert three._at(torch.tensor(timestep)) is three.denoisers[index]


@pytest.mark.parametrize("payload", ["velocity", "trunk-residual"])
@pytest.mark.parametrize("rule", ["plain", "gram", "tracked"])
def test_tree_policy_rollout_and_differentiable_rollout_agree(bench, pair, payload, rule):
    toy = bench(steps=9, samples=4, denoiser=pair)
    (first,) = pair.first_steps(toy.schedule.timesteps)
    assert 2 < first < 6
    masks = (
        StepMask.from_compute_steps(9, (0, 1, first, 7)),
        StepMask.from_compute_steps(9, (0, 2, first, first + 1)),
    )
    candidate = Candidate(masks, rule, payload)
    (rollout,) = toy.tree().roll_out([candidate])
    policy = policy_of(toy.tree(), candidate, rollout.rows)
    for branch in policy.branches:
        plan = plan_branch(branch.mask, branch.predictor, [first])
        assert plan[first - 1].keep == 0
        assert len(branch.predictor[first + 1]) <= 1
    latents = rollout_policy(toy.over(), toy.form, policy)
    errors = (latents - toy.run.latents).square().flatten(1).mean(1)
    assert rollout.errors == pytest.approx(errors.tolist(), rel=1e-4)
    parameters = PolicyParameters(
        policy, toy.scheduler, toy.schedule.sigmas, toy.schedule.timesteps, False, first_steps=[first]
    )
    unrolled = differentiable_rollout(pair, parameters, toy.network.conditions)
    torch.testing.assert_close(unrolled.detach(), latents, atol=1e-5, rtol=1e-5)


def test_a_policy_that_reuses_a_first_step_does_not_run(bench, pair):
    toy = bench(steps=9, samples=2, denoiser=pair)
    candidate = Candidate.of(9, (0, 1, 8))
    rows = [dict.fromkeys(pair.branches, () if k in (0, 1, 8) else (1.0,)) for k in range(9)]
    with pytest.raises(SemanticsViolation, match="its denoiser has 0 before it"):
        rollout_policy(toy.over(), toy.form, policy_of(toy.tree(), candidate, rows))


def test_errors_of_reuse_do_not_look_over_a_first_step(bench, pair):
    toy = bench(steps=8, samples=3, denoiser=pair)
    gram = mean_gram(toy.run.gram["trunk-residual"])
    unsplit, split, single = (
        segment_errors(gram, 2),
        segment_errors(gram, 2, first_steps=[4]),
        segment_errors(gram, 1),
    )
    assert torch.equal(split[2, 5], single[2, 5])
    assert torch.equal(split[3, 4], single[3, 4])
    assert torch.equal(split[4, 5], unsplit[4, 5])
    assert torch.equal(split[1, 3], unsplit[1, 3])
    assert not torch.equal(unsplit[2, 5], single[2, 5])


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_trained_sigmas_never_cross_a_boundary(bench, pair, solver):
    toy = bench(steps=8, samples=2, solver=solver, denoiser=pair)
    (first,) = pair.first_steps(toy.schedule.timesteps)
    candidate = Candidate.of(8, (0, 2, first, 7), "tracked")
    policy = policy_of(toy.tree(), candidate, toy.tree().roll_out([candidate])[0].rows)
    trained = PolicyParameters(
        policy, toy.scheduler, toy.schedule.sigmas, toy.schedule.timesteps, True, first_steps=[first]
    )
    for seed in range(20):
        with torch.no_grad():
            offsets = 4 * torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            trained.groups["sigmas"].copy_(offsets)
        sigmas = trained.schedule()
        assert (sigmas.diff() < 0).all()
        assert sigmas[first - 1 : first + 1].tolist() == list(toy.schedule.sigmas[first - 1 : first + 1])
        _, schedule = aligned(policy, trained)
        assert pair.first_steps(schedule.timesteps) == (first,)
    assert not torch.allclose(sigmas, torch.tensor(toy.schedule.sigmas, dtype=torch.float64), atol=1e-2)


def test_two_denoisers_of_the_users_own(toys, pair):
    conditions = toys.conditions(8)
    compiled = budc.compile_policy(
        pair,
        conditioning=conditions.embeddings,
        noise=conditions.noise,
        scheduler=toys.schedulers["euler"](),
        sigmas=toys.schedule(toys.schedulers["euler"](), 9).sigmas,
        budget=4,
        guidance={"cond": 3.0, "uncond": -2.0},
        held_out=(toys.conditions(4, seed=1).embeddings, toys.conditions(4, seed=1).noise),
        align=True,
        steps="auto",
    )
    (first,) = pair.first_steps(compiled.timesteps)
    for branch in compiled.policy.branches:
        assert branch.mask[first]
        plan_branch(branch.mask, branch.predictor, [first])
    assert compiled.report["policy"].geometric_mean <= compiled.report["uniform"].geometric_mean


def test_budgets_and_schedules_that_leave_a_denoiser_no_step_are_refused(toys, pair):
    conditions = toys.conditions(8)
    given = {
        "conditioning": conditions.embeddings,
        "noise": conditions.noise,
        "scheduler": toys.schedulers["euler"](),
        "guidance": {"cond": 3.0, "uncond": -2.0},
    }
    with pytest.raises(BudgetImpossible, match="has 2 to 4, and each of 2 denoisers computes its first"):
        budc.compile_policy(pair, sigmas=[1.0, 0.8, 0.5, 0.2, 0.0], budget=1, **given)
    with pytest.raises(UsageError, match=r"of 2 steps some .* have none \(they begin at steps 0, 2\)"):
        budc.compile_policy(pair, sigmas=[1.0, 0.8, 0.0], budget=2, **given)


@pytest.mark.parametrize("search", [*ALGORITHMS])
@pytest.mark.parametrize("separate", [False, True])
def test_every_search_finds_a_policy_that_keeps_the_split(
    task, pair, tmp_path, monkeypatch, search, separate
):
    monkeypatch.setattr(sys.modules["budc.compiler.search.paper"], "ANNEALING_STEPS", 10)
    monkeypatch.setattr(sys.modules["budc.compiler.search.anneal"], "MOVES", 10)
    searched = task(
        7, 3, denoiser=pair, search=search, separate=separate, published_masks=((0, 1, 2), (0, 2, 6))
    )
    (first,) = pair.first_steps(searched.schedule.timesteps)
    with Journal(tmp_path, "find") as journal:
        outcome = Finder(Calibration(searched, journal)).find(searched)
    assert sum(sum(branch.mask) * len(branch.names) for branch in outcome.policy.branches) == 6
    for branch in outcome.policy.branches:
        assert branch.mask[first]
        assert plan_branch(branch.mask, branch.predictor, [first])[first - 1].keep == 0
