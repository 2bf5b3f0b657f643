"""LPIPS as a loss, on random weights and the VAE of a tiny folder."""

from dataclasses import replace as with_fields

import pytest
import torch
from lpips_weights import ALEX, ALEX_WIDTHS, random_layers, save_lpips
from msgspec.structs import replace

from budc.compiler.metrics import METRICS, digest_of, load_metrics
from budc.compiler.metrics.lpips_network import load_lpips
from budc.compiler.training.frame_loss import FrameLoss

CPU = torch.device("cpu")
SAMPLES = 2


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_lpips(folder / "lpips", random_layers(ALEX, 0), ALEX_WIDTHS)
    return folder


@pytest.fixture(scope="module")
def decode(model):
    profile = replace(model.profile, height=32, width=32, frames=5)
    return model.adapter.decoder(model.folder, profile, CPU)


@pytest.fixture(scope="module")
def loss(weights, decode):
    folder = weights / "lpips"
    return FrameLoss("lpips", decode, load_lpips("alex", folder), CPU, digest_of(folder))


@pytest.fixture(scope="module")
def latents(model):
    profile = replace(model.profile, height=32, width=32, frames=5)
    return model.adapter.noise(model.folder, profile, range(2 * SAMPLES)).split(SAMPLES)


def test_it_is_the_metric_of_the_decoded_frames(loss, decode, latents, weights):
    loaded, _ = load_metrics([METRICS["lpips"]], weights, CPU)
    frames, expected = ([decode(sample)[0] for sample in group.split(1)] for group in latents)
    measured = [loaded["lpips"].measure(one, other, "") for one, other in zip(frames, expected, strict=True)]
    with torch.no_grad():
        assert loss(*latents).tolist() == pytest.approx(measured, rel=1e-5)
        assert loss(latents[0], latents[0]).tolist() == [0.0] * SAMPLES
    assert loss.weights == loaded["lpips"].weights


def test_its_gradient_is_that_of_the_pixels(loss, latents):
    """A step down the gradient lowers the loss by the gradient's square; the weights have no gradient."""
    start, reference = latents[0].clone().requires_grad_(True), latents[1]
    before = loss(start, reference).sum()
    (gradient,) = torch.autograd.grad(before, start)
    step = 1e-3 / float(gradient.norm())
    with torch.no_grad():
        after = loss(start - step * gradient, reference).sum()
    fell = float(before.detach() - after)
    assert fell == pytest.approx(step * float(gradient.square().sum()), rel=0.05)
    assert not any(value.requires_grad for value in loss.distance.parameters())


def test_the_activations_of_one_sample_are_kept_at_a_time(loss, latents):
    """The backward pass of a sample decodes it again."""
    decoded = []
    counting = with_fields(loss, decode=lambda sample: decoded.append(len(sample)) or loss.decode(sample))
    start = latents[0].clone().requires_grad_(True)
    total = counting(start, latents[1]).sum()
    assert decoded == [1] * 2 * SAMPLES
    torch.autograd.grad(total, start)
    assert decoded == [1] * 4 * SAMPLES
