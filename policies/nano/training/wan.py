"""Train the Wan siblings: `python -m budc.policies.nano.training.wan --out runs/nano`.

Stages, each of which resumes where it stopped: text encoder, VAE, latents of the training clips, one denoiser for each
model. A finished model is written to `<out>/<name>`, a folder for `WanPipeline.from_pretrained`. To use two cores, run
it with `--prepare` first, then once for each model.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import click
import torch
from diffusers import AutoencoderKLWan
from transformers import UMT5EncoderModel

from budc.policies.nano.architectures.wan import (
    MODELS,
    build_text_encoder,
    build_transformer,
    build_vae,
    save_pipeline,
)
from budc.policies.nano.data.captions import Scene
from budc.policies.nano.text.tokenizer import build_tokenizer
from budc.policies.nano.training import text_encoder, wan_denoiser, wan_latents, wan_vae
from budc.policies.nano.training.loop import fit


def text_stage(out: Path, seed: int, device: torch.device) -> UMT5EncoderModel:
    """Train the text encoder; a finished stage is loaded."""
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer, seed)
    probe = text_encoder.Probe(encoder, partial(text_encoder.embed, encoder, tokenizer)).to(device)
    fit(probe, text_encoder.text_loss(probe), text_encoder.RECIPE, out / "text.pt", seed, "text")
    print(f"text: all five attributes read in {text_encoder.accuracy(probe, seed):.1%} of captions")
    return encoder.eval().requires_grad_(False)


def vae_stage(out: Path, seed: int, device: torch.device) -> AutoencoderKLWan:
    """Train the VAE; a finished stage is loaded."""
    vae = build_vae(seed).to(device)
    fit(vae, wan_vae.vae_loss(vae), wan_vae.RECIPE, out / "vae.pt", seed, "vae")
    vae.eval().requires_grad_(False)
    wan_vae.standardise(vae, seed)
    print(f"vae: {wan_vae.psnr(vae, seed):.2f} dB on held-out clips")
    return vae


@click.command(help=__doc__)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="folder for checkpoints and models"
)
@click.option("--model", "names", type=click.Choice(MODELS), multiple=True, default=MODELS)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option(
    "--device", "device_name", default="cpu", show_default=True, help="cpu or cuda; their weights differ"
)
@click.option(
    "--shards", default=f"0:{wan_latents.SHARDS}", show_default=True, help="latent shards to encode here"
)
@click.option("--prepare", is_flag=True, help="stop before the denoisers")
def main(
    out: Path, names: tuple[str, ...], seed: int, threads: int, device_name: str, shards: str, prepare: bool
) -> None:
    """Run the stages in order."""
    device = torch.device(device_name)
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    torch.set_num_threads(threads)
    encoder, vae = text_stage(out, seed, device), vae_stage(out, seed, device)
    tokenizer = build_tokenizer()
    first, last = (int(bound) for bound in shards.split(":"))
    for index in range(first, last):
        wan_latents.encode_shard(vae, out / "latents", index, seed)
        print(f"latents {index + 1}/{wan_latents.SHARDS}", flush=True)
    if prepare:
        return
    clean, scenes = wan_latents.load_shards(out / "latents", Scene)
    for name in names:
        transformer = build_transformer(name, seed).to(device)
        loss = wan_denoiser.denoiser_loss(name, transformer, encoder, tokenizer, clean, scenes)
        fit(transformer, loss, wan_denoiser.RECIPES[name], out / f"{name}.pt", seed, name)
        save_pipeline(out / name, transformer.eval(), vae, encoder, tokenizer)
        print(f"{name}: saved to {out / name}")


if __name__ == "__main__":
    main()
