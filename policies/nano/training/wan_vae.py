"""Train the VAE that the Wan siblings share on crops: first of images, then of clips.

`AutoencoderKLWan.decode` clamps its output, which stops the gradient of saturated pixels. Training uses the same
decoder without the clamp.
"""

from __future__ import annotations

import itertools

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from budc.policies.nano.data import clips
from budc.policies.nano.data.captions import captions
from budc.policies.nano.training.loop import Loss, Recipe

RECIPE = Recipe(steps=2600, matrix_lr=0.02, other_lr=3e-3, average=0.998, save_every=200)
CROP = 32
MIN_DEVIATION = 0.5
"""Least deviation by which a latent channel is divided."""


def decode_unclamped(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """Decode latents (B, z, T, H, W) to frames (B, 3, 1 + 4 (T - 1), 8 H, 8 W) that may leave -1..1."""
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents)
    chunks = []
    for index in range(hidden.shape[2]):
        vae._conv_idx = [0]
        chunk = hidden[:, :, index : index + 1]
        chunks.append(
            vae.decoder(chunk, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=index == 0)
        )
    vae.clear_cache()
    frames: Tensor = unpatchify(torch.cat(chunks, dim=2), patch_size=vae.config.patch_size)
    return frames


def draw_frames(step: int, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Draw the crops of one step: of single images in the first quarter of the steps, of clips afterwards."""
    images = step < recipe.steps // 4
    size = 24 if images else 8
    seed = int(torch.randint(2**31, (), generator=generator))
    scenes = [caption.scene for caption in itertools.islice(captions("train", seed), size)]
    frames = clips.batch(scenes, generator)
    crops = random_crops(frames, generator)
    return crops[:, :, :1] if images else crops


def random_crops(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Crop each sample (B, ..., HEIGHT, WIDTH) to a random square of `CROP` pixels, in steps of a latent (8 pixels)."""
    rows, columns = (
        torch.randint(clips.HEIGHT - CROP + 1, (len(frames), 2), generator=generator)
        .div(8, rounding_mode="floor")
        .T
        * 8
    )
    return torch.stack(
        [f[..., r : r + CROP, c : c + CROP] for f, r, c in zip(frames, rows, columns, strict=True)]
    )


def vae_loss(vae: AutoencoderKLWan, recipe: Recipe = RECIPE) -> Loss:
    """Return the loss of one step: absolute and squared error of the frames, and 1e-4 of the KL term."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        frames = draw_frames(step, recipe, generator).to(vae.device)
        with torch.autocast(vae.device.type, dtype=torch.bfloat16):
            posterior = vae.encode(frames).latent_dist
            mean, logvar = posterior.mean.float(), posterior.logvar.float()
            noise = torch.randn(mean.shape, generator=generator).to(vae.device)
            latents = mean + noise * (0.5 * logvar).exp()
            output = decode_unclamped(vae, latents).float()
        return reconstruction(output - frames, mean, logvar)

    return loss


def reconstruction(error: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Return absolute and squared error of the pixels, and 1e-4 of the KL divergence from a unit Gaussian."""
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    total: Tensor = error.abs().mean() + error.square().mean() + 1e-4 * kl
    return total


@torch.no_grad()
def standardise(vae: AutoencoderKLWan, seed: int, count: int = 256) -> None:
    """Write mean and deviation of each latent channel into the configuration.

    The deviation is at least `MIN_DEVIATION`: channels that the KL term has switched off would otherwise count as much
    in the denoiser's loss as those that the decoder uses.
    """
    generator = torch.Generator().manual_seed(seed)
    scenes = [caption.scene for caption in itertools.islice(captions("train", seed), count)]
    batches = clips.batch(scenes, generator).to(vae.device).split(32)
    means = torch.cat([vae.encode(frames).latent_dist.mean for frames in batches])
    flat = means.transpose(0, 1).flatten(1)
    vae.register_to_config(
        latents_mean=[round(v, 6) for v in flat.mean(1).tolist()],
        latents_std=[round(v, 6) for v in flat.std(1).clamp(min=MIN_DEVIATION).tolist()],
    )


@torch.no_grad()
def psnr(vae: AutoencoderKLWan, seed: int, count: int = 32) -> float:
    """Measure the reconstruction of whole held-out clips, dB over pixels in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    scenes = [caption.scene for caption in itertools.islice(captions("held-out", seed), count)]
    frames = clips.batch(scenes, generator).to(vae.device)
    output = torch.cat([vae.decode(vae.encode(batch).latent_dist.mean).sample for batch in frames.split(16)])
    return float(-10 * ((output - frames) / 2).square().mean().log10())
