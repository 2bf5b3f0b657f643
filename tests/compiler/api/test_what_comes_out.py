"""`budc.compile_policy`: what comes out, of which budget, and what cannot be compiled."""

import pytest
import torch
from torch import nn
from toy_networks import pair

from budc.compiler.network import finding
from budc.schema.errors import (
    BudgetImpossible,
    CompileError,
    UnsupportedModel,
    UsageError,
)
from budc.schema.evaluation import Latency


def test_a_policy_its_schedule_and_what_it_cost(compiled, toys):
    result = compiled(held_out=(toys.conditions(4, seed=1).embeddings, toys.conditions(4, seed=1).noise))
    assert sum(result.policy.branches[0].mask) == 3
    assert (len(result.sigmas), len(result.timesteps)) == (7, 6)
    assert result.outcome.forwards.reference == 6 * 8 * 2
    assert result.outcome.forwards.total == (6 + 3) * 8 * 2
    assert list(result.report) == ["policy", "uniform", "fewer-steps"]
    assert result.report["policy"] == result.report["uniform"]


def test_a_factor_is_a_budget_too(compiled):
    assert sum(compiled(budget="2x").policy.branches[0].mask) == 3


def test_the_smallest_budget_for_a_quality(compiled):
    asked = {"budget": None, "search": "joint", "effort": "fast"}
    result = compiled(quality="latent-mse<=0.05", **asked)
    curve = [note for note in result.outcome.notes if ": latent-mse" in note]
    kept = {int(note.split()[0]): not note.endswith("not kept") for note in curve}
    assert kept[result.nfe]
    assert all(not held for nfe, held in kept.items() if nfe < result.nfe)
    assert result.nfe == 1 or result.nfe - 1 in kept
    assert result.outcome.settings["choice2"] in result.outcome.notes
    assert result.origin.budget == "latent-mse<=0.05"
    worst = compiled(quality="latent-mse<=0.05", worst=True, **asked)
    assert worst.nfe >= result.nfe
    assert worst.origin.budget == "latent-mse.worst<=0.05"
    with pytest.raises(BudgetImpossible, match=r"^quality: no budget below the full run of 6 steps keeps"):
        compiled(quality="latent-mse<=1e-30", **asked)


def test_the_largest_budget_within_a_time(compiled, monkeypatch, toys):
    def timed(nfe, *_):
        return Latency(median=0.5 * nfe, fastest=0.4 * nfe, slowest=float(nfe), repeats=3)

    held_out = (toys.conditions(4, seed=1).embeddings, toys.conditions(4, seed=1).noise)
    assert compiled(budget=None, within=60.0, held_out=held_out).nfe == 6
    monkeypatch.setattr(finding, "timed_loop", timed)
    result = compiled(budget=None, within="1600ms", held_out=held_out)
    assert (result.nfe, result.origin.budget) == (3, "1600ms")
    assert any(note.startswith("4 evaluations: the loop took 2 s") for note in result.outcome.notes)
    assert "the loop took" not in str(result.outcome.settings)
    # The baselines have as many evaluations as what was found.
    assert result.report["policy"] == result.report["uniform"]
    with pytest.raises(BudgetImpossible, match=r"^within: 0.1 s are too few; 1 evaluation: the loop took"):
        compiled(budget=None, within=0.1)


def test_what_is_meant_is_accepted(compiled, toys, tmp_path):
    expected = compiled()
    sigmas, timesteps = torch.tensor(expected.sigmas, dtype=torch.float64), torch.tensor(expected.timesteps)
    assert compiled(sigmas=sigmas, timesteps=timesteps).policy == expected.policy
    assert compiled(sigmas=sigmas.numpy(), work=str(tmp_path), weights="toy").policy == expected.policy
    assert compiled(noise=toys.conditions(8).noise.double()).policy == expected.policy
    assert compiled(list(pair(1.0))).policy == compiled(pair(1.0)).policy


class Growing(nn.Module):
    """Its blocks lengthen the hidden state."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

    def forward(self, latents, timestep, condition):
        hidden = latents
        for block in self.blocks:
            hidden = torch.cat([hidden, block(hidden)], dim=1)
        return hidden[:, : latents.shape[1]]


def cached_of(length):
    """A network that caches `length(step's timestep)` rows of its latents."""

    def compute(latents, timestep, condition):
        return latents / 2, latents[:, : length(float(timestep[0]))]

    return compute, lambda cached, latents, timestep, condition: latents / 3


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (Growing(), r"turn a hidden state of shape \(.*, 2, 3\) into one of \(.*, 16, 3\)"),
        (
            cached_of(lambda timestep: 2 if timestep > 500 else 1),
            r"caches a tensor of shape \(.*, 2, 3\) at step 0 and of \(.*, 1, 3\) at step 4",
        ),
    ],
    ids=["module", "functions"],
)
def test_what_cannot_be_reused_because_its_shape_changes_is_refused(compiled, denoiser, message):
    with pytest.raises(UnsupportedModel, match=message):
        compiled(denoiser)


def test_a_policy_that_diverges_on_held_out_samples_is_none(compiled, toys):
    def diverging(level):
        def reuse(cached, latents, timestep, condition):
            return latents * (float("inf") if latents.abs().max() > level else 0.5)

        return cached_of(lambda timestep: 2)[0], reuse

    held_out = toys.conditions(4, seed=1)
    given = held_out.embeddings, 1e6 * held_out.noise
    with pytest.raises(CompileError, match="final latents, or those of the full run, are not finite"):
        compiled(diverging(1e4), held_out=given)
    plain = compiled(diverging(1e4), held_out=(held_out.embeddings, held_out.noise))
    assert list(plain.report) == ["policy", "uniform", "fewer-steps"]


def test_no_sample_is_held_out_that_the_policy_was_selected_on(compiled, toys):
    calibration, others = toys.conditions(8), toys.conditions(4, seed=1)
    with pytest.raises(UsageError, match="held_out: its sample 0 is calibration sample 0") as caught:
        compiled(held_out=(calibration.embeddings, calibration.noise))
    assert "not among the calibration samples" in caught.value.remedy
    mixed = {name: torch.cat([others.embeddings[name], t[5:6]]) for name, t in calibration.embeddings.items()}
    with pytest.raises(UsageError, match="held_out: its sample 4 is calibration sample 5"):
        compiled(held_out=(mixed, torch.cat([others.noise, calibration.noise[5:6]])))
    # The same prompts from other noise are other samples.
    assert compiled(held_out=(calibration.embeddings, toys.conditions(8, seed=1).noise)).report
