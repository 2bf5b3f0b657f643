"""Training: what it lowers, what it returns, and what a kill leaves."""

import pytest
import torch

from budc.compiler.search import Candidate
from budc.compiler.selection.scores import policy_of
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.forwards import BACKWARD
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.trainer import TrainingSettings, train

EPOCHS = 3


@pytest.fixture
def toy_training(bench):
    """A toy, a policy of plain reuse on it, and prompts to train on (7) and to validate by (3)."""
    toy = bench(steps=6, samples=10)
    tree = toy.tree()
    candidate = Candidate.of(6, (0, 2, 4), "plain", "velocity")
    policy = policy_of(tree, candidate, tree.roll_out([candidate])[0].rows)
    whole = TrainingSet(toy.network.conditions, toy.run.latents)

    def parameters():
        return PolicyParameters(
            policy, toy.scheduler, toy.schedule.sigmas, toy.schedule.timesteps, train_sigmas=True
        )

    return toy.network.denoiser, parameters, whole.part(0, 7), whole.part(7, 10)


def trained(toy_training, journal, parameters=None, validation=None, epochs=EPOCHS, seed=0):
    denoiser, make, training_set, own_validation = toy_training
    return train(
        denoiser,
        parameters or make(),
        training_set,
        validation or own_validation,
        TrainingSettings(epochs, seed, batch=3),
        journal,
        "align",
    )


def test_it_lowers_the_loss_of_prompts_that_it_has_not_seen(toy_training, journal):
    result = trained(toy_training, journal, epochs=8)
    assert result.after < result.before - 0.1
    assert 1 <= result.epoch <= 8
    # A backward counts two forwards; each epoch is validated, and so is the start.
    assert result.forwards == 8 * ((1 + BACKWARD) * 6 * 7 + 6 * 3) + 6 * 3


def test_it_lowers_the_loss_that_it_trains(toy_training, journal, tmp_path):
    _, make, training_set, _ = toy_training
    result = trained(toy_training, journal, validation=training_set, epochs=8)
    assert result.after < result.before - 0.2
    # The parameters are left at their best: validating them again gives the same.
    parameters = make()
    for name, tensor in parameters.groups.items():
        with torch.no_grad():
            tensor.copy_(result.values[name])
    with Journal(tmp_path / "again", "print") as other:
        again = trained(toy_training, other, parameters, training_set, epochs=0)
    assert again.before == pytest.approx(result.after, abs=1e-6)


def test_what_does_not_generalise_changes_nothing(toy_training, journal):
    """Validated by prompts that the untrained policy fits perfectly, any change is for the worse."""
    denoiser, make, _, validation = toy_training
    from budc.compiler.training.unrolled import differentiable_rollout

    parameters = make()
    start = {name: tensor.detach().clone() for name, tensor in parameters.groups.items()}
    perfect = TrainingSet(
        validation.conditions, differentiable_rollout(denoiser, parameters, validation.conditions).detach()
    )
    result = trained(toy_training, journal, parameters, perfect)
    assert result.epoch == 0
    assert result.after == result.before
    for name, tensor in parameters.groups.items():
        assert torch.equal(tensor, start[name])
        assert torch.equal(result.values[name], start[name])
    assert any(
        journal.records[f"align epoch {epoch}"]["state"][name]["values"] != start[name].flatten().tolist()
        for epoch in (1, 2, 3)
        for name in start
    ), "it was trained, and thrown away"


@pytest.mark.parametrize("stop", range(1, EPOCHS + 1))
def test_a_training_killed_after_any_epoch_ends_the_same_to_the_last_bit(
    toy_training, tmp_path, monkeypatch, stop
):
    with Journal(tmp_path / "undisturbed", "print") as journal:
        expected = trained(toy_training, journal)
    put = Journal.put

    def stopping(self, key, value):
        put(self, key, value)
        if len(self.records) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", stopping)
    with Journal(tmp_path / "killed", "print") as journal, pytest.raises(KeyboardInterrupt):
        trained(toy_training, journal)
    monkeypatch.setattr(Journal, "put", put)
    with Journal(tmp_path / "killed", "print") as journal:
        result = trained(toy_training, journal)
    assert (result.before, result.after, result.epoch, result.forwards) == (
        expected.before,
        expected.after,
        expected.epoch,
        expected.forwards,
    )
    for name, values in expected.values.items():
        assert torch.equal(result.values[name], values)
    files = [(tmp_path / name / "journal.jsonl").read_bytes() for name in ("undisturbed", "killed")]
    assert files[0] == files[1]


def test_the_seed_decides_the_order_of_prompts(toy_training, tmp_path):
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        with Journal(tmp_path / str(number), "print") as journal:
            losses.append(trained(toy_training, journal, epochs=1, seed=seed).after)
    assert losses[0] == losses[1] != losses[2]


def test_a_gradient_that_is_not_finite_moves_nothing(toy_training, journal):
    denoiser, make, training_set, validation = toy_training
    broken = TrainingSet(training_set.conditions, torch.full_like(training_set.latents, float("nan")))
    result = trained((denoiser, make, broken, validation), journal)
    assert result.epoch == 0
    for name, tensor in make().groups.items():
        assert torch.equal(result.values[name], tensor)


def test_without_validation_prompts_the_last_parameters_are_kept(toy_training, journal):
    denoiser, make, training_set, _ = toy_training
    parameters = make()
    result = train(denoiser, parameters, training_set, None, TrainingSettings(2, 0), journal, "align")
    assert (result.before, result.after, result.epoch) == (None, None, 2)
    assert result.forwards == 2 * (1 + BACKWARD) * 6 * 7
    # What the journal has is not trained again.
    again = make()
    stored = train(denoiser, again, training_set, None, TrainingSettings(2, 0), journal, "align")
    assert {name: values.tolist() for name, values in stored.values.items()} == {
        name: values.tolist() for name, values in parameters.groups.items()
    }


def test_the_gradient_is_clipped_by_its_norm_over_all_groups(toy_training, journal, monkeypatch):
    denoiser, make, training_set, _ = toy_training
    norms = []
    step = torch.optim.Adam.step

    def noted(optimiser, *arguments):
        leaves = [leaf for group in optimiser.param_groups for leaf in group["params"]]
        norms.append(float(torch.cat([leaf.grad.flatten() for leaf in leaves]).norm()))
        return step(optimiser, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    for clip in (None, 0.01):
        settings = TrainingSettings(1, 0, batch=7, clip=clip)
        train(denoiser, make(), training_set, None, settings, journal, f"clip {clip}")
    assert norms[0] > 0.02
    assert norms[1] == pytest.approx(0.01, rel=1e-3)
