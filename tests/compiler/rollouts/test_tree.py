"""The tree of rollouts: sharing, forgetting and stacking change nothing, to the last bit."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.evaluation.reference import reference_set
from budc.compiler.models.denoiser import ModelDenoiser
from budc.compiler.rollouts.candidate import CoefficientFit
from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.prefix import prefixes
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate
from budc.compiler.selection.scores import policy_of
from budc.compiler.storage import spill
from budc.policies.profile import read_prompts
from budc.policies.samples import samples_of
from budc.schema.mask import StepMask

RULES = ("plain", "gram", "tracked")
PAYLOADS = ("trunk-residual", "velocity")


def drawn(steps, nfe, count, seed=0, rules=RULES, payloads=PAYLOADS, width=1):
    """Random candidates; with `width` of 2, branches have masks of their own."""
    rng = random.Random(seed)
    candidates = []
    for _ in range(count):
        masks = tuple(
            StepMask.from_compute_steps(steps, (0, *sorted(rng.sample(range(1, steps), nfe - 1))))
            for _ in range(width)
        )
        candidates.append(Candidate(masks, rng.choice(rules), rng.choice(payloads)))
    return candidates


@pytest.fixture(scope="module")
def tiny(model, sampler, prompt_file, tmp_path_factory):
    """The untrained transformer on three prompts: (denoiser, conditions, form, reference run, folder)."""
    from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
    from budc.compiler.storage.journal import Journal

    folder = tmp_path_factory.mktemp("tiny")
    with Journal(folder / "j", "print") as journal:
        reference = reference_set(
            PipelineRollout(model), sampler, samples_of(read_prompts(prompt_file), "", 7), journal, "full"
        )
        denoiser = ModelDenoiser(model)
        form = linear_form(model.scheduler, sampler.sigmas, sampler.timesteps)
        run = reference_run(BatchedDenoiser(denoiser, reference.conditions), form, journal, "states")
    torch.testing.assert_close(run.latents, reference.latents, atol=1e-5, rtol=1e-5)
    return denoiser, reference.conditions, form, run, folder


@pytest.mark.parametrize("solver", ["euler", "unipc"])
@pytest.mark.parametrize("width", [1, 2])
def test_shared_prefixes_change_no_bit(bench, solver, width):
    toy = bench(steps=9, solver=solver)
    candidates = drawn(9, 4, 16, width=width)
    shared = toy.tree()
    together = shared.roll_out(candidates[:10]) + [
        shared.roll_out([candidate])[0] for candidate in candidates[10:]
    ]
    for candidate, rollout in zip(candidates, together, strict=True):
        (alone,) = toy.tree().roll_out([candidate])
        assert rollout.errors == alone.errors, candidate.key
        assert rollout.rows == alone.rows, candidate.key
    apart = sum(toy.tree().roll_out([candidate])[0].forwards for candidate in candidates)
    assert apart == sum(len(m.compute_steps) for c in candidates for m in c.masks * (3 - width)) * 5
    assert shared.network.forwards == sum(rollout.forwards for rollout in together) < 0.8 * apart


def test_on_a_transformer_sharing_and_stacking_change_no_bit(tiny):
    denoiser, conditions, form, run, folder = tiny
    candidates = drawn(6, 3, 4)
    shared = Tree(BatchedDenoiser(denoiser, conditions), form, run, folder).roll_out(candidates)
    stacking = Tree(BatchedDenoiser(denoiser, conditions, batch=12, stack=True), form, run, folder)
    stacked = stacking.roll_out(candidates)
    for index, candidate in enumerate(candidates):
        (alone,) = Tree(BatchedDenoiser(denoiser, conditions), form, run, folder).roll_out([candidate])
        assert shared[index].errors == alone.errors
        (padded,) = Tree(
            BatchedDenoiser(denoiser, conditions, batch=12, stack=True), form, run, folder
        ).roll_out([candidate])
        assert stacked[index].errors == padded.errors
        assert stacked[index].errors == pytest.approx(alone.errors, rel=1e-2)


def test_rollouts_are_the_pipelines_loop_under_the_policy_found(tiny, model, sampler, pipeline_rollout):
    """Three ways to the same latents: the tree, a rollout of its coefficients, and the real scheduler."""
    denoiser, conditions, form, run, folder = tiny
    tree = Tree(BatchedDenoiser(denoiser, conditions), form, run, folder)
    candidates = drawn(6, 3, 4, seed=1) + drawn(6, 2, 2, seed=2, rules=("tracked",), width=2)
    for candidate, rollout in zip(candidates, tree.roll_out(candidates), strict=True):
        policy = policy_of(tree, candidate, rollout.rows)
        network = BatchedDenoiser(denoiser, conditions)
        followed = rollout_policy(network, form, policy)
        assert latent_errors(followed, run.latents) == pytest.approx(rollout.errors, rel=1e-6)
        assert network.forwards == forwards_per_sample(policy) * len(conditions)
        rolled = pipeline_rollout.run(policy, sampler, conditions)
        torch.testing.assert_close(rolled, followed, atol=1e-5, rtol=1e-5)
        assert (rolled - run.latents).abs().max() > 1e-4


def test_forgetting_changes_no_bit_and_costs_forwards(bench):
    toy = bench(steps=10)
    candidates = drawn(10, 5, 30)
    roomy, cramped = toy.tree(), toy.tree(memory=1)
    plenty = [roomy.roll_out([candidate])[0] for candidate in candidates]
    little = [cramped.roll_out([candidate])[0] for candidate in candidates]
    assert [rollout.errors for rollout in little] == [rollout.errors for rollout in plenty]
    assert cramped.network.forwards == sum(rollout.forwards for rollout in little)
    assert roomy.network.forwards < cramped.network.forwards
    assert len(cramped._nodes) <= 5 < len(roomy._nodes)


def test_a_node_keeps_nothing_of_the_batch_that_it_was_computed_in(bench):
    tree = bench(steps=8).tree()
    tree.roll_out(drawn(8, 4, 8))
    kept = [tensor for node in tree._nodes.values() for own in node.cached.values() for _, tensor in own]
    assert kept
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in kept)


def test_what_a_node_cached_gives_its_velocities_again(bench, monkeypatch):
    """Between batches only residuals have theirs kept, as these need the network to be taken again."""
    toy = bench(steps=10)
    tree = toy.tree()
    (candidate,) = drawn(10, 4, 1, rules=("tracked",), payloads=("velocity",), width=2)
    (residual,) = drawn(10, 4, 1, rules=("tracked",), payloads=("trunk-residual",))
    first = tree.roll_out([candidate, residual])
    kept = {node.prefix.payload: len(node.velocities) for node in tree._nodes.values()}
    assert kept == {"velocity": 0, "trunk-residual": 10}
    held = sum(tensor.nbytes for node in tree._nodes.values() for tensor in node.velocities)
    computed, fits = tree.network.forwards, []
    monkeypatch.setattr(CoefficientFit, "rows", lambda *_: fits.append(1))
    again = tree.roll_out([candidate, residual])
    assert [rollout.errors for rollout in again] == [rollout.errors for rollout in first]
    assert (tree.network.forwards, fits) == (computed, [])
    assert held == sum(tensor.nbytes for node in tree._nodes.values() for tensor in node.velocities)


@pytest.mark.parametrize("options", [{}, {"batch": 12, "stack": True}])
def test_a_node_takes_the_memory_that_is_counted_for_it(bench, options):
    toy = bench(steps=10)
    tree = Tree(toy.over(**options), toy.form, toy.run, toy.folder)
    (candidate,) = drawn(10, 4, 1, rules=("tracked",), payloads=("velocity",))
    tree.roll_out([candidate])
    tensors = {
        id(tensor): tensor.untyped_storage().nbytes()
        for node in tree._nodes.values()
        for tensor in (*node.velocities, *(t for own in node.cached.values() for _, t in own))
    }
    path = prefixes(candidate, tree.network.branches)
    assert sum(tensors.values()) == sum(tree._sizes(path))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nodes_lie_in_files_where_the_memory_of_the_host_is_short(bench, monkeypatch, payload):
    toy = bench(steps=8)
    candidates = drawn(8, 3, 4, rules=("tracked",), payloads=(payload,))
    expected = toy.tree().roll_out(candidates)
    monkeypatch.setattr(spill, "RESERVE", 1.0)
    tree = toy.tree()
    assert tree.roll_out(candidates[:2]) + tree.roll_out(candidates[2:]) == expected
    assert str(toy.folder) in Path("/proc/self/maps").read_text()
    del tree
    assert str(toy.folder) not in Path("/proc/self/maps").read_text()


def test_more_is_remembered_where_less_is_cached(bench):
    """A trunk residual is counted as large as it is only where it is what a candidate caches."""
    toy = bench(steps=10)
    toy.run = replace(toy.run, residual_bytes=50_000)
    counts = {}
    for payload in ("velocity", "trunk-residual"):
        tree = toy.tree(memory=1_000_000)
        tree.roll_out(drawn(10, 5, 30, rules=("plain",), payloads=(payload,)))
        counts[payload] = len(tree._nodes)
    assert counts["velocity"] > 2 * counts["trunk-residual"]


@pytest.mark.parametrize("memory", [1, 20_000, 4 << 30])
@pytest.mark.parametrize("killed_at", [1, 7, 15])
def test_a_resumed_search_counts_what_an_undisturbed_one_counts(bench, memory, killed_at):
    toy = bench(steps=8)
    candidates = drawn(8, 4, 24, rules=("tracked",), payloads=("velocity",))
    undisturbed = toy.tree(memory)
    expected = [undisturbed.roll_out([candidate])[0] for candidate in candidates]
    resumed = toy.tree(memory)
    counted = [resumed.note(candidate) for candidate in candidates[:killed_at]]
    assert resumed.network.forwards == 0
    rolled = [resumed.roll_out([candidate])[0] for candidate in candidates[killed_at:]]
    assert counted == [rollout.forwards for rollout in expected[:killed_at]]
    assert rolled == expected[killed_at:]
    # What the names say was shared is not there any more, and is computed again.
    assert resumed.network.forwards >= sum(rollout.forwards for rollout in rolled)


def test_a_candidate_twice_costs_once(bench):
    toy = bench()
    tree = toy.tree()
    (candidate,) = drawn(8, 3, 1)
    first, second = tree.roll_out([candidate, candidate])
    assert (first.errors, first.rows) == (second.errors, second.rows)
    assert (first.forwards, second.forwards) == (3 * 2 * 5, 0)
    assert tree.network.forwards == 3 * 2 * 5


def test_branches_with_masks_of_their_own(bench):
    toy = bench(steps=6)
    tree = toy.tree()
    cond, uncond = StepMask.from_compute_steps(6, (0, 2, 4)), StepMask.from_compute_steps(6, (0, 5))
    candidate = Candidate((cond, uncond), "tracked", "velocity")
    (rollout,) = tree.roll_out([candidate])
    assert rollout.forwards == tree.network.forwards == (3 + 2) * 5
    assert [sorted(row) for row in rollout.rows] == [
        [],
        ["cond", "uncond"],
        ["uncond"],
        ["cond", "uncond"],
        ["uncond"],
        ["cond"],
    ]
    # The step after the first has one residual a branch, the last three of cond and two of uncond at the most.
    assert [len(row.get("cond", ())) for row in rollout.rows] == [0, 1, 0, 2, 0, 3]
    assert [len(row.get("uncond", ())) for row in rollout.rows] == [0, 1, 1, 1, 1, 0]
    policy = policy_of(tree, candidate, rollout.rows)
    assert [branch.names for branch in policy.branches] == [["cond"], ["uncond"]]
    errors = latent_errors(rollout_policy(toy.over(), toy.form, policy), toy.run.latents)
    assert errors == pytest.approx(rollout.errors)
    # One mask given twice is one mask.
    same = Candidate((cond, cond), "plain"), Candidate((cond,), "plain")
    assert toy.tree().roll_out([same[0]])[0] == toy.tree().roll_out([same[1]])[0]
    assert policy_of(tree, same[0], toy.tree().roll_out([same[0]])[0].rows).branches[0].names == [
        "cond",
        "uncond",
    ]


def test_tracked_coefficients_lose_less(bench):
    tree = bench(steps=12).tree()
    for payload in PAYLOADS:
        plain, gram, tracked = (
            sum(tree.roll_out([Candidate.of(12, (0, 2, 4, 6, 8, 10), rule, payload)])[0].errors)
            for rule in RULES
        )
        assert tracked < 0.5 * min(plain, gram)
