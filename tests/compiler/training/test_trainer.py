"""Refinement: what it learns, what it returns, and what a kill leaves."""

import pytest
import torch

from budc.compiler.search import Candidate
from budc.compiler.selection.study import policy_of
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.trainer import BACKWARD

EPOCHS = 3


@pytest.fixture
def lessons(bench):
    """A toy, a policy of plain reuse on it, and prompts to learn from (7) and to arbiter by (3)."""
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


def refined(lessons, journal, parameters=None, validation=None, epochs=EPOCHS, seed=0, **options):
    denoiser, make, train, arbiter = lessons
    return train(
        denoiser,
        parameters or make(),
        train,
        validation or arbiter,
        epochs=epochs,
        evaluations=6,
        seed=seed,
        journal=journal,
        label="align",
        batch=3,
        **options,
    )


def test_it_lowers_the_loss_of_prompts_that_it_has_not_seen(lessons, journal):
    found = refined(lessons, journal, epochs=8)
    assert found.after < found.before - 0.1
    assert 1 <= found.epoch <= 8
    # A backward counts two forwards; each epoch is judged, and so is the start.
    assert found.forwards == 8 * ((1 + BACKWARD) * 6 * 7 + 6 * 3) + 6 * 3


def test_it_lowers_the_loss_that_it_trains(lessons, journal, tmp_path):
    denoiser, make, train, _ = lessons
    found = refined(lessons, journal, validation=train, epochs=8)
    assert found.after < found.before - 0.2
    # The parameters are left at their best: judging them again gives the same.
    parameters = make()
    for name, tensor in parameters.groups.items():
        with torch.no_grad():
            tensor.copy_(found.values[name])
    with Journal(tmp_path / "again", "print") as other:
        again = train(
            denoiser,
            parameters,
            train,
            train,
            epochs=0,
            evaluations=6,
            seed=0,
            journal=other,
            label="x",
            batch=3,
        )
    assert again.before == pytest.approx(found.after, abs=1e-6)


def test_what_does_not_generalise_changes_nothing(lessons, journal):
    """Judged by prompts that the untrained policy fits perfectly, any change is for the worse."""
    denoiser, make, _, arbiter = lessons
    from budc.compiler.training.unrolled import differentiable_rollout

    parameters = make()
    start = {name: tensor.detach().clone() for name, tensor in parameters.groups.items()}
    perfect = TrainingSet(
        arbiter.conditions, differentiable_rollout(denoiser, parameters, arbiter.conditions).detach()
    )
    found = refined(lessons, journal, parameters, perfect)
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
def test_a_refinement_killed_after_any_epoch_ends_the_same_to_the_last_bit(
    lessons, tmp_path, monkeypatch, stop
):
    with Journal(tmp_path / "undisturbed", "print") as journal:
        expected = refined(lessons, journal)
    put = Journal.put

    def stopping(self, key, value):
        put(self, key, value)
        if len(self.records) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "put", stopping)
    with Journal(tmp_path / "killed", "print") as journal, pytest.raises(KeyboardInterrupt):
        refined(lessons, journal)
    monkeypatch.setattr(Journal, "put", put)
    with Journal(tmp_path / "killed", "print") as journal:
        found = refined(lessons, journal)
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


def test_the_seed_decides_the_order_of_prompts(lessons, tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        with Journal(tmp_path / str(number), "print") as journal:
            found.append(refined(lessons, journal, epochs=1, seed=seed).after)
    assert found[0] == found[1] != found[2]


def test_a_gradient_that_is_not_finite_moves_nothing(lessons, journal):
    denoiser, make, train, arbiter = lessons
    broken = TrainingSet(train.conditions, torch.full_like(train.latents, float("nan")))
    found = refined((denoiser, make, broken, arbiter), journal)
    assert found.epoch == 0
    for name, tensor in make().groups.items():
        assert torch.equal(found.values[name], tensor)
