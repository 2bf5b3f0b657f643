"""A policy moved from one network of one's own to another: masks stay, coefficients are fitted, both are reported."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

import budc
from budc.compiler.selection import effort as efforts
from budc.compiler.selection.effort import EFFORTS, Effort, PerBudget
from budc.runtimes.admission.trust import UnsignedWarning
from budc.schema.errors import CompileError, JournalCorrupt, UnsupportedModel, UsageError


class Net(nn.Module):
    def __init__(self, width, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.enter, self.text, self.leave = nn.Linear(3, width), nn.Linear(8, width), nn.Linear(width, 3)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def forward(self, latents, timestep, condition):
        hidden = self.enter(latents) + self.text(condition)[:, None] * timestep[:, None, None] / 1000
        for layer in self.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        return self.leave(hidden)


def samples(first, last):
    torch.manual_seed(9)
    text, noise = torch.randn(12, 8), torch.randn(12, 2, 3)
    return {"text": text[first:last], "empty": torch.zeros(last - first, 8)}, noise[first:last]


@pytest.fixture(scope="module")
def small():
    """A policy for the small network."""
    conditioning, noise = samples(0, 8)
    return budc.compile_policy(
        Net(4),
        conditioning=conditioning,
        noise=noise,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        sigmas=[1 - step / 6 for step in range(7)],
        budget=3,
        guidance={"text": 3.0, "empty": -2.0},
        blocks="layers",
        search="dp",
        held_out=samples(8, 12),
    )


def moved(source, **changes):
    conditioning, noise = samples(0, 8)
    arguments = {
        "denoiser": Net(16, seed=1),
        "conditioning": conditioning,
        "noise": noise,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "held_out": samples(8, 12),
    }
    given = arguments | changes
    return budc.transfer_policy(source, given.pop("denoiser"), **given)


def masks(compiled):
    return [branch.mask for branch in compiled.policy.branches]


def test_masks_stay_and_coefficients_are_those_of_the_other_network(small, tmp_path):
    result = moved(small)
    assert masks(result) == masks(small)
    assert result.policy != small.policy
    assert (result.sigmas, result.outcome.candidates) == (small.sigmas, 1)
    assert list(result.report) == ["policy", "uniform", "fewer-steps", "frozen"]
    assert result.report["policy"] != result.report["frozen"]
    source = small.save(tmp_path / "small.budc.json")
    with pytest.warns(UnsignedWarning):
        large = moved(source, allow_unsigned=True)
    document = large.save(tmp_path / "large.budc.json").document
    assert (document.search.algorithm, document.derived_from) == ("transfer", source.policy_id)
    assert document.search.settings["from"] == "net-nfe3"
    assert "frozen" in [baseline.name for baseline in document.quality.baselines]


def test_a_policy_that_was_moved_stays_when_it_is_moved_to_the_same_network_again(small):
    once = moved(small)
    again = moved(once)
    assert again.policy == once.policy
    assert again.report["policy"] == again.report["frozen"] == once.report["policy"]


@pytest.mark.usefixtures("short_search")
def test_nearby_masks_are_tried_too(small):
    result = moved(small, nearby=True)
    assert result.outcome.candidates > 1
    assert result.outcome.settings["nearby"] is True


def test_the_effort_says_on_how_many_samples_coefficients_are_fitted(small, monkeypatch):
    monkeypatch.setattr(
        efforts,
        "EFFORTS",
        EFFORTS | {"small": Effort(screen=PerBudget({1: 2}), fit=PerBudget({1: 3}), judge=2)},
    )
    few, all_of_them = (moved(small, effort=name, held_out=None) for name in ("small", "thorough"))
    forwards = [result.outcome.forwards.reference for result in (few, all_of_them)]
    assert forwards == [6 * 2 * 3, 6 * 2 * 8]
    assert few.policy != all_of_them.policy


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"effort": "heroic"}, "effort: no effort named 'heroic'"),
        ({"effort": 3}, "effort: .* is no name"),
        ({"nearby": "yes"}, "nearby: .* is neither True nor False"),
        ({"weights": ""}, "weights: .* names no weights"),
    ],
)
def test_settings_of_another_kind_are_refused(small, wrong, told):
    with pytest.raises(UsageError, match=told):
        moved(small, **wrong)


def test_a_transfer_resumes_from_its_folder_and_from_no_other(small, tmp_path):
    first = moved(small, work=tmp_path)
    assert moved(small, work=tmp_path).policy == first.policy
    with pytest.raises(JournalCorrupt, match="another compile"):
        moved(small, work=tmp_path, denoiser=Net(16, seed=2))
    with pytest.raises(JournalCorrupt, match="another compile"):
        moved(first, work=tmp_path)


def test_what_does_not_fit_is_refused(small, make_document):
    one = {"text": samples(0, 8)[0]["text"]}
    with pytest.raises(UsageError, match=r"conditioning has the branches \['text'\], the policy has"):
        moved(small, conditioning=one, held_out=None)
    with pytest.raises(UsageError, match="denoiser has the branches"):
        moved(small, guidance={"text": 1.0})
    with pytest.raises(UnsupportedModel, match="not a list of blocks"):
        moved(small, blocks="others")
    with pytest.raises(UsageError, match="progress: 3 is no function of three values"):
        moved(small, progress=3)
    with pytest.raises(UsageError, match="weights: 3 names no weights"):
        moved(small, weights=3)
    with pytest.raises(UsageError, match="artifact: None"):
        moved(None)
    broken = Net(16)
    broken.leave.bias.data.fill_(float("nan"))
    with pytest.raises(CompileError, match="not finite"):
        moved(small, denoiser=broken)
    with (
        pytest.warns(UserWarning, match="not signed"),
        pytest.raises(UsageError, match="is for the pipeline"),
    ):
        moved(make_document(), allow_unsigned=True)


def test_passes_are_reported_and_nothing_is_printed(small, capfd):
    passes = []
    moved(small, progress=lambda *given: passes.append(given))
    moved(small)
    assert capfd.readouterr() == ("", "")
    runs, fits = passes[:-2], passes[-2:]
    assert runs == [("calibration full", done, 6) for done in range(1, 7)]
    assert fits == [("fit on 8 prompts", 1, 1), ("fit, beside its own coefficients", 1, 1)]


def test_what_a_callback_raises_ends_the_search_which_can_be_resumed(small, tmp_path):
    def stop(label, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moved(small, work=tmp_path, progress=stop)
    assert masks(moved(small, work=tmp_path)) == masks(small)
