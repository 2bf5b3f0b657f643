"""Schedule alignment: the paper's settings, and what it changes."""

import pytest

from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.search import Candidate
from budc.compiler.selection.scores import policy_of
from budc.compiler.training import schedule_alignment
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.losses import squared_error
from budc.compiler.training.schedule_alignment import align_schedule, training_settings
from budc.compiler.training.second_stage import FLUX, WAN, Configuration, configuration


@pytest.fixture
def toy_policy(bench):
    """A toy, a policy of plain reuse on it, and its prompts with their full run."""
    toy = bench(steps=6, samples=10)
    tree = toy.tree()
    candidate = Candidate.of(6, (0, 2, 4), "plain", "velocity")
    policy = policy_of(tree, candidate, tree.roll_out([candidate])[0].rows)
    return toy, policy, TrainingSet(toy.network.conditions, toy.run.latents)


def test_the_settings_are_those_of_the_released_configurations():
    """A hundred prompts in batches of eight are thirteen steps; two hundred one by one warm up over ten."""
    assert (configuration(1), configuration(2)) == (FLUX, WAN)
    flux, wan = training_settings(1, 100, 3), training_settings(2, 200, 3)
    assert (flux.epochs, flux.batch, flux.clip, flux.warm_up, flux.seed) == (1, 8, 1.0, 0, 3)
    assert (wan.epochs, wan.batch, wan.clip, wan.warm_up) == (1, 1, 0.2, 10)
    assert (FLUX.epochs(32), FLUX.epochs(1000)) == (4, 1)
    assert flux.rates == {"sigmas": 5e-4}
    assert flux.loss is squared_error


def test_sigmas_alone_change_and_the_error_falls(toy_policy, journal, monkeypatch):
    short = Configuration(samples=40, batch=10, clip=0.2)
    monkeypatch.setattr(schedule_alignment, "configuration", lambda branches: short)
    toy, policy, training_set = toy_policy
    settings = training_settings(2, len(training_set), 0)
    schedule, training = align_schedule(
        toy.network.denoiser, policy, toy.schedule, training_set, settings, journal, "align"
    )
    assert set(training.values) == {"sigmas"}
    assert (schedule.sigmas[0], schedule.sigmas[-1]) == (toy.schedule.sigmas[0], toy.schedule.sigmas[-1])
    assert list(schedule.sigmas) == sorted(schedule.sigmas, reverse=True)
    moves = [abs(a - b) for a, b in zip(schedule.sigmas[1:-1], toy.schedule.sigmas[1:-1], strict=True)]
    assert 1e-5 < max(moves) < 0.01
    # Four steps, each of which moves a log gap by about its rate at most.
    assert training.epoch == 4
    assert float(training.values["sigmas"].abs().max()) < 4 * 5e-4

    def error(chosen):
        latents = rollout_policy(toy.network, chosen.linear_form(), policy)
        return sum(latent_errors(latents, training_set.latents))

    assert error(schedule) < error(toy.schedule)
