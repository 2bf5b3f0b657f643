"""The training loop learns and resumes to the same weights; the losses are what they claim to be."""

import pytest
import torch

from budc.policies.nano.architectures import wan
from budc.policies.nano.data.captions import Scene
from budc.policies.nano.text.tokenizer import build_tokenizer
from budc.policies.nano.training import text_encoder, wan_denoiser, wan_vae
from budc.policies.nano.training.loop import Fit, Recipe, fit
from budc.schema.errors import UsageError


def problem():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))

    def loss(step, generator):
        x = torch.randn(32, 4, generator=generator)
        return (module(x) - x[:, :1] * x[:, 1:2]).square().mean()

    return module, loss


def value(loss):
    return float(loss.detach())


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    recipe = Recipe(steps=60, warmup=5, save_every=20)
    whole, loss = problem()
    fit(whole, loss, recipe, tmp_path / "whole.pt", 1, "whole")

    class KilledError(Exception):
        pass

    module, loss = problem()

    def until_thirty(step, generator):
        if step == 30:
            raise KilledError
        return loss(step, generator)

    with pytest.raises(KilledError):
        fit(module, until_thirty, recipe, tmp_path / "half.pt", 1, "half")
    module, loss = problem()
    fit(module, loss, recipe, tmp_path / "half.pt", 1, "half")
    assert torch.equal(weights(module), weights(whole))


def test_training_lowers_the_loss(tmp_path):
    module, loss = problem()
    before = value(loss(0, torch.Generator().manual_seed(0)))
    fit(module, loss, Recipe(steps=300, warmup=5, average=0.9), tmp_path / "p.pt", 0, "p")
    assert value(loss(0, torch.Generator().manual_seed(0))) < 0.7 * before


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    module, loss = problem()
    fit(module, loss, Recipe(steps=5), tmp_path / "p.pt", 0, "p")
    with pytest.raises(UsageError, match="seed 0, not 1"):
        fit(module, loss, Recipe(steps=5), tmp_path / "p.pt", 1, "p")


def test_the_rate_warms_up_and_falls_to_zero():
    module, _ = problem()
    run = Fit(module, Recipe(steps=100, warmup=10, cooldown=0.2), seed=0)
    rates = []
    for run.step in range(101):
        rates.append(run._rate())
    assert rates[0] == 0.1
    assert rates[50] == 1.0
    assert rates[90] == pytest.approx(0.5)
    assert rates[100] == 0.0


def test_the_siblings_differ_by_eight_to_ten_in_size():
    nano, mini = (sum(p.numel() for p in wan.build_transformer(name, 0).parameters()) for name in wan.MODELS)
    assert 8 <= mini / nano <= 10


def test_decoding_for_training_is_decoding_without_the_clamp():
    vae = wan.build_vae(0).eval()
    latents = 3 * torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        free = wan_vae.decode_unclamped(vae, latents)
        assert torch.equal(free.clamp(-1, 1), vae.decode(latents).sample)
    assert free.shape == (1, 3, 9, 64, 64)


def test_text_is_padded_with_zeros_as_the_pipeline_pads_it():
    tokenizer = build_tokenizer()
    encoder = wan.build_text_encoder(tokenizer, 0).eval()
    states = text_encoder.embed(encoder, tokenizer, ["a red circle", ""])
    assert states.shape == (2, 32, wan.TEXT_WIDTH)
    assert bool((states[0, 4:] == 0).all())
    assert bool((states[0, :4] != 0).any(-1).all())
    assert bool((states[1, 1:] == 0).all())


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_the_denoiser_learns_velocity_from_noise():
    """A step's loss is finite, has a gradient everywhere, and follows the generator alone."""
    tokenizer = build_tokenizer()
    encoder = wan.build_text_encoder(tokenizer, 0).eval()
    transformer = wan.build_transformer("wan2.1-nano", 0)
    scenes = [Scene("red", "circle", "small", "left", "striped")] * 4
    latents = torch.randn(4, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    loss = wan_denoiser.denoiser_loss("wan2.1-nano", transformer, encoder, tokenizer, latents, scenes)
    first = loss(0, torch.Generator().manual_seed(5))
    first.backward()
    assert 0.5 < value(first) < 10
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in transformer.parameters())
    assert value(loss(0, torch.Generator().manual_seed(5))) == value(first)
    assert value(loss(0, torch.Generator().manual_seed(6))) != value(first)
