"""Train the nano models: `python -m budc.policies.nano.training.wan --out runs/nano`.

Stages, each resumed where it stopped: text encoder, VAE, latents of the training clips, one denoiser per
model. A finished model lands in `<out>/<name>` as a folder for `WanPipeline.from_pretrained`. To use two
cores, run it with `--prepare` first, then once per model.
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
from budc.policies.nano.training import text_encoder as train_text
from budc.policies.nano.training import wan_denoiser as train_denoiser
from budc.policies.nano.training import wan_latents as latents
from budc.policies.nano.training import wan_vae as train_vae
from budc.policies.nano.training.loop import fit


def text_stage(out: Path, seed: int, device: torch.device) -> UMT5EncoderModel:
    """Train the text encoder, or load what a finished run left."""
    tokenizer = build_tokenizer()
    encoder = build_text_encoder(tokenizer, seed)
    probe = train_text.Probe(encoder, partial(train_text.embed, encoder, tokenizer)).to(device)
    fit(probe, train_text.text_loss(probe), train_text.RECIPE, out / "text.pt", seed, "text")
    print(f"text: all five attributes read in {train_text.accuracy(probe, seed):.1%} of captions")
    return encoder.eval().requires_grad_(False)


def vae_stage(out: Path, seed: int, device: torch.device) -> AutoencoderKLWan:
    """Train the VAE, or load what a finished run left."""
    vae = build_vae(seed).to(device)
    fit(vae, train_vae.vae_loss(vae), train_vae.RECIPE, out / "vae.pt", seed, "vae")
    vae.eval().requires_grad_(False)
    train_vae.standardise(vae, seed)
    print(f"vae: {train_vae.psnr(vae, seed):.2f} dB on held-out clips")
    return vae


@click.command(help=__doc__)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="folder for checkpoints and models"
)
@click.option("--model", "names", type=click.Choice(MODELS), multiple=True, default=MODELS)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda; their weights differ")
@click.option(
    "--shards", default=f"0:{latents.SHARDS}", show_default=True, help="latent shards to encode here"
)
@click.option("--prepare", is_flag=True, help="stop before the denoisers")
def main(
    out: Path, names: tuple[str, ...], seed: int, threads: int, device: str, shards: str, prepare: bool
) -> None:
    """Run the stages in order."""
    place = torch.device(device)
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    torch.set_num_threads(threads)
    encoder, vae = text_stage(out, seed, place), vae_stage(out, seed, place)
    tokenizer = build_tokenizer()
    first, last = (int(part) for part in shards.split(":"))
    for index in range(first, last):
        latents.encode_shard(vae, out / "latents", index, seed)
        print(f"latents {index + 1}/{latents.SHARDS}", flush=True)
    if prepare:
        return
    clean, scenes = latents.load_shards(out / "latents", Scene)
    for name in names:
        transformer = build_transformer(name, seed).to(place)
        loss = train_denoiser.denoiser_loss(name, transformer, encoder, tokenizer, clean, scenes)
        fit(transformer, loss, train_denoiser.RECIPES[name], out / f"{name}.pt", seed, name)
        save_pipeline(out / name, transformer.eval(), vae, encoder, tokenizer)
        print(f"{name}: saved to {out / name}")


if __name__ == "__main__":
    main()
