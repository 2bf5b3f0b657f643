"""The same policy in fewer steps: equal latents with Euler and velocities, and where an alignment takes it."""

import pytest
import torch

from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.selection import alignment
from budc.compiler.selection.condensed import condensed
from budc.compiler.selection.finder import Finder
from budc.compiler.storage.journal import Journal
from budc.schema.policy import Policy

ROWS = [[], [1.0], [0.5], [], [1.5, -0.5], [2.0], [1.0, 0.2], []]
OTHERS = [[], [0.9], [0.7], [], [1.2, -0.2], [1.0, 0.1], [1.1], []]


def policy(payload="velocity", uncond=OTHERS):
    return Policy.of(payload, {"cond": ROWS, "uncond": uncond})


def test_it_ends_in_the_same_latents_with_a_row_an_interval(bench):
    toy = bench(steps=8)
    fewer, schedule = condensed(policy(), toy.schedule)
    kept = [0, 1, 3, 4, 7]
    assert schedule.sigmas == (*(toy.schedule.sigmas[step] for step in kept), toy.schedule.sigmas[-1])
    assert schedule.timesteps == tuple(toy.schedule.timesteps[step] for step in kept)
    assert fewer.for_branch("cond").mask == [True, False, True, False, True]
    expected = rollout_policy(toy.network, toy.form, policy())
    torch.testing.assert_close(rollout_policy(toy.network, schedule.linear_form(), fewer), expected)


def test_a_step_that_one_branch_computes_stays(bench):
    separate = [[], [1.0], [], [1.0], [1.0], [1.0], [1.0], []]
    toy = bench(steps=8)
    fewer, schedule = condensed(policy(uncond=separate), toy.schedule)
    assert schedule.steps == 6
    assert fewer.for_branch("uncond").mask == [True, False, True, False, False, True]
    expected = rollout_policy(toy.network, toy.form, policy(uncond=separate))
    torch.testing.assert_close(rollout_policy(toy.network, schedule.linear_form(), fewer), expected)


def test_there_is_nothing_to_merge_in_other_payloads_and_in_single_steps(bench):
    toy = bench(steps=8)
    assert condensed(policy("trunk-residual"), toy.schedule) is None
    alternate = [[], [1.0]] * 4
    assert condensed(Policy.of("velocity", {"cond": alternate, "uncond": alternate}), toy.schedule) is None


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_an_alignment_takes_fewer_steps_where_the_number_is_free_and_nothing_is_lost(
    task, tmp_path, toys, monkeypatch, solver
):
    """With UniPC, whose steps remember those before, the policy in fewer steps is another one."""
    monkeypatch.setattr(alignment, "epochs", lambda nfe, given: 1)
    starts = []
    train = alignment.train
    monkeypatch.setattr(
        alignment, "train", lambda *given: starts.append(given[1].form().steps) or train(*given)
    )
    few = toys.schedule(toys.schedulers[solver](), 3)
    asked = {"solver": solver, "samples": 6, "align": True, "payloads": ("velocity",)}

    def find(name, **fields):
        wanted = task(9, 3, **asked, **fields)
        with Journal(tmp_path / name, "find") as journal:
            Finder(wanted, journal).find(wanted)

    find("free", few_step_schedule=few)
    condensed_steps, plain_steps = starts
    assert plain_steps == 3
    assert (3 < condensed_steps < 9) is (solver == "euler")
    starts.clear()
    find("fixed")
    assert starts == [9]
