"""Train the FLUX sibling: `python -m budc.policies.nano.training.flux --out runs/flux-nano`.

Stages, each of which resumes where it stopped: both text encoders, VAE, latents of the training pictures, a teacher
with classifier-free guidance, and a student that has the guidance scale as an input. The student is what ships.
"""

from __future__ import annotations

import copy
import warnings
from functools import partial
from pathlib import Path

import click
import torch
from diffusers import AutoencoderKL

from budc.policies.nano.architectures import flux as architecture
from budc.policies.nano.architectures.wan import TEXT_WIDTH
from budc.policies.nano.data.pictures import Picture, vocabulary
from budc.policies.nano.text.clip_tokenizer import build_clip_tokenizer
from budc.policies.nano.text.tokenizer import build_tokenizer
from budc.policies.nano.training import (
    flux_denoiser,
    flux_latents,
    flux_text,
    flux_vae,
    text_encoder,
    wan_latents,
)
from budc.policies.nano.training.loop import fit


def text_stage(out: Path, seed: int, device: torch.device) -> flux_text.TextEncoders:
    """Train both text encoders, each with a probe of its own; a finished stage is loaded."""
    clip_tokenizer, t5_tokenizer = build_clip_tokenizer(), build_tokenizer(vocabulary())
    t5, clip = architecture.build_t5(t5_tokenizer, seed), architecture.build_clip(clip_tokenizer, seed)

    def pooled(texts: list[str]) -> torch.Tensor:
        return flux_text.pooled_state(clip, clip_tokenizer, texts)[:, None]

    probes = {
        "t5": text_encoder.Probe(
            t5, partial(flux_text.token_states, t5, t5_tokenizer), TEXT_WIDTH, flux_text.PICTURES
        ),
        "clip": text_encoder.Probe(clip, pooled, architecture.POOLED_WIDTH, flux_text.PICTURES),
    }
    for name, probe in probes.items():
        probe.to(device)
        fit(probe, text_encoder.text_loss(probe), flux_text.RECIPE, out / f"{name}.pt", seed, name)
        rate = text_encoder.accuracy(probe, seed)
        print(f"{name}: all five attributes read in {rate:.1%} of captions", flush=True)
    return flux_text.TextEncoders(clip, t5, clip_tokenizer, t5_tokenizer)


def vae_stage(out: Path, seed: int, device: torch.device) -> AutoencoderKL:
    """Train the VAE; a finished stage is loaded."""
    vae = architecture.build_vae(seed).to(device)
    fit(vae, flux_vae.vae_loss(vae), flux_vae.RECIPE, out / "vae.pt", seed, "vae")
    vae.eval().requires_grad_(False)
    flux_vae.standardise(vae, seed)
    print(f"vae: {flux_vae.psnr(vae, seed):.2f} dB on held-out pictures", flush=True)
    return vae


@click.command(help=__doc__)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="folder for checkpoints and model"
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@click.option(
    "--device", "device_name", default="cpu", show_default=True, help="cpu or cuda; their weights differ"
)
@click.option("--prepare", is_flag=True, help="stop before the denoisers")
def main(out: Path, seed: int, threads: int, device_name: str, prepare: bool) -> None:
    """Run the stages in order."""
    device = torch.device(device_name)
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    torch.set_num_threads(threads)
    encoders, vae = text_stage(out, seed, device), vae_stage(out, seed, device)
    for index in range(flux_latents.SHARDS):
        flux_latents.encode_shard(vae, out / "latents", index, seed)
        print(f"latents {index + 1}/{flux_latents.SHARDS}", flush=True)
    if prepare:
        return
    clean, pictures = wan_latents.load_shards(out / "latents", Picture, flux_latents.SHARDS)
    data = flux_denoiser.TrainingData(clean, pictures, encoders, seed)
    student = architecture.build_transformer(seed).to(device)
    fit(
        student,
        flux_denoiser.teacher_loss(student, data),
        flux_denoiser.TEACHER,
        out / "teacher.pt",
        seed,
        "teacher",
    )
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    loss = flux_denoiser.student_loss(student, teacher, data)
    fit(student, loss, flux_denoiser.STUDENT, out / "student.pt", seed, "student")
    folder = out / architecture.MODEL
    architecture.save_pipeline(
        folder,
        student.eval(),
        vae,
        encoders.clip,
        encoders.t5,
        encoders.clip_tokenizer,
        encoders.t5_tokenizer,
    )
    print(f"{architecture.MODEL}: saved to {folder}")


if __name__ == "__main__":
    main()
