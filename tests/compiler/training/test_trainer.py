"""Training: what it lowers, what it returns, and what a kill leaves."""

import pytest
import torch

from budc.compiler.search import Candidate
from budc.compiler.selection.study import policy_of
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.trainer import BACKWARD, TrainingSettings, train

EPOCHS = 3


@pytest.fixture
def toy_training(bench):
    """A toy, a policy of plain reuse on it, and prompts to train on (7) and to validate by (3)."""
    made = bench(steps=6, samples=10)
    tree = made.tree()
    candidate = Candidate.of(6, (0, 2, 4), "plain", "velocity")
    policy = policy_of(tree, candidate, tree.roll_out([candidate])[0].rows)
    whole = TrainingSet(made.network.conditions, made.run.latents)

    def parameters():
        return PolicyParameters(
            policy, made.scheduler, made.schedule.sigmas, made.schedule.timesteps, train_sigmas=True
        )

    return made.network.denoiser, parameters, whole.part(0, 7), whole.part(7, 10)


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
    found = trained(toy_training, journal, epochs=8)
    assert found.after < found.before - 0.1
    assert 1 <= found.epoch <= 8
    # A backward counts two forwards; each epoch is validated, and so is the start.
    assert found.forwards == 8 * ((1 + BACKWARD) * 6 * 7 + 6 * 3) + 6 * 3


def test_it_lowers_the_loss_that_it_trains(toy_training, journal, tmp_path):
    _, make, training_set, _ = toy_training
    found = trained(toy_training, journal, validation=training_set, epochs=8)
    assert found.after < found.before - 0.2
    # The parameters are left at their best: validating them again gives the same.
    parameters = make()
    for name, tensor in parameters.groups.items():
        with torch.no_grad():
            tensor.copy_(found.values[name])
    with Journal(tmp_path / "again", "print") as other:
        again = trained(toy_training, other, parameters, training_set, epochs=0)
    assert again.before == pytest.approx(found.after, abs=1e-6)


def test_what_does_not_generalise_changes_nothing(toy_training, journal):
    """Validated by prompts that the untrained policy fits perfectly, any change is for the worse."""
    denoiser, make, _, validation = toy_training
    from budc.compiler.training.unrolled import differentiable_rollout

    parameters = make()
    start = {name: tensor.detach().clone() for name, tensor in parameters.groups.items()}
    perfect = TrainingSet(
        validation.conditions, differentiable_rollout(denoiser, parameters, validation.conditions).detach()
    )
    found = trained(toy_training, journal, parameters, perfect)
    assert found.epoch == 0
    assert found.after == found.before
    for name, tensor in parameters.groups.items():
        assert torch.equal(tensor, start[name])
        assert torch.equal(found.values[name], start[name])
    assert any(
        journal.get(f"align epoch {epoch}")["state"][name]["values"] != start[name].tolist()
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
        found = trained(toy_training, journal)
    assert (found.before, found.after, found.epoch, found.forwards) == (
        expected.before,
        expected.after,
        expected.epoch,
        expected.forwards,
    )
    for name, values in expected.values.items():
        assert torch.equal(found.values[name], values)
    files = [(tmp_path / name / "journal.jsonl").read_bytes() for name in ("undisturbed", "killed")]
    assert files[0] == files[1]


def test_the_seed_decides_the_order_of_prompts(toy_training, tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        with Journal(tmp_path / str(number), "print") as journal:
            found.append(trained(toy_training, journal, epochs=1, seed=seed).after)
    assert found[0] == found[1] != found[2]


def test_a_gradient_that_is_not_finite_moves_nothing(toy_training, journal):
    denoiser, make, training_set, validation = toy_training
    broken = TrainingSet(training_set.conditions, torch.full_like(training_set.latents, float("nan")))
    found = trained((denoiser, make, broken, validation), journal)
    assert found.epoch == 0
    for name, tensor in make().groups.items():
        assert torch.equal(found.values[name], tensor)
