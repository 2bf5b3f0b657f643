"""Coefficients refined on some prompts: what is gained, what it costs, and what is left of it after a kill."""

import pytest

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.selection import effort as efforts
from budc.compiler.selection.finder import Finder
from budc.compiler.storage.journal import Journal

SHAPE = (16, 16)
"""Of latents. With few values, moves fit the prompts that they were measured on."""


@pytest.fixture
def find(tmp_path):
    """Find a policy in a folder by name: (result, records of the journal)."""

    def find(task, name="find"):
        with Journal(tmp_path / name, "find") as journal:
            finder = Finder(task, journal)
            return finder.find(task), dict(journal.records), finder

    return find


def loss(toys, task, result):
    """The log loss on further prompts of a toy."""
    conditions = toys.conditions(40, task.denoiser.branches, SHAPE, seed=9)
    network = BatchedDenoiser(task.denoiser, conditions)
    form = task.schedule.linear_form()
    reference = rollout_policy(network, form, full_policy(form.steps, task.denoiser.branches))
    return objective("log-mean", latent_errors(rollout_policy(network, form, result.policy), reference))


@pytest.mark.parametrize("effort", ["balanced", "thorough"])
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_a_refined_policy_loses_less_on_other_prompts(task, toys, find, monkeypatch, solver, effort):
    wanted = task(12, 4, samples=24, shape=SHAPE, solver=solver, effort=effort)
    refined, _, _ = find(wanted, "refined")
    monkeypatch.setattr(efforts, "LEAST_REFINED", 100)
    plain, _, _ = find(wanted, "plain")
    assert "coefficients refined on" in refined.notes[-1]
    assert not any("refined" in note for note in plain.notes)
    assert loss(toys, wanted, refined) < loss(toys, wanted, plain) - 0.1
