"""Train the image VAE of `flux-nano` on pictures, and measure the scale in its configuration."""

from __future__ import annotations

import itertools

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from budc.policies.nano.data import stills
from budc.policies.nano.data.captions import Split
from budc.policies.nano.data.pictures import Picture, captions
from budc.policies.nano.training.loop import Loss, Recipe
from budc.policies.nano.training.wan_vae import random_crops, reconstruction

RECIPE = Recipe(steps=1600, matrix_lr=0.02, other_lr=3e-3, average=0.998, save_every=200)
BATCH = 20


def draw(split: Split, seed: int, count: int) -> tuple[Tensor, list[Picture]]:
    """Draw pictures (count, 3, H, W) in -1..1 and what they show."""
    pictures = [caption.scene for caption in itertools.islice(captions(split, seed), count)]
    return stills.batch(pictures, torch.Generator().manual_seed(seed)), pictures


def vae_loss(vae: AutoencoderKL) -> Loss:
    """Return the loss of one step, the same as of the Wan VAE."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**31, (), generator=generator))
        frames = random_crops(draw("train", seed, BATCH)[0], generator).to(vae.device)
        with torch.autocast(vae.device.type, dtype=torch.bfloat16):
            posterior = vae.encode(frames).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator).to(vae.device)
            output = vae.decode(mean + noise * (0.5 * logvar).exp()).sample.float()
        return reconstruction(output - frames, mean, logvar)

    return loss


@torch.no_grad()
def standardise(vae: AutoencoderKL, seed: int, count: int = 512) -> None:
    """Write mean and deviation of all latents into the configuration, as in the VAE of FLUX."""
    frames, _ = draw("train", seed, count)
    means = torch.cat([vae.encode(batch.to(vae.device)).latent_dist.mean for batch in frames.split(64)])
    vae.register_to_config(
        shift_factor=round(float(means.mean()), 6), scaling_factor=round(1 / float(means.std()), 6)
    )


@torch.no_grad()
def psnr(vae: AutoencoderKL, seed: int, count: int = 128) -> float:
    """Measure the reconstruction of held-out pictures, dB over pixels in 0..1."""
    frames, _ = draw("held-out", seed, count)
    output = torch.cat(
        [vae.decode(vae.encode(p).latent_dist.mean).sample for p in frames.to(vae.device).split(64)]
    )
    error = (output.clamp(-1, 1) - frames.to(vae.device)) / 2
    return float(-10 * error.square().mean().log10())
