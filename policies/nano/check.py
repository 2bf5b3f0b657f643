"""Check that a nano model learned its language: `python -m budc.policies.nano.check wan2.1-nano`.

Generates held-out captions with the full sampler through the plain WanPipeline, reads the frames with the
procedural reader, and does the same with an untrained denoiser. `--card` writes the figures into the model's
card, `--sheet` draws what was generated.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import click
import msgspec
import torch
from diffusers import WanPipeline
from PIL import Image
from torch import Tensor

from budc.policies.nano import clips
from budc.policies.nano.captions import MAX_TOKENS, Caption, Scene, captions
from budc.policies.nano.components import GUIDANCE, MODELS, STEPS, build_transformer
from budc.policies.nano.reader import read

CARD = """\
# {model}

An embedded sibling of Wan2.1 on the real pipeline classes, trained from nothing on procedural clips of one moving
shape: {shape}. Parameters: {sizes}. It exists so that policies can be searched, signed, run and tested on any
machine; it generates nothing else. Licence: Apache-2.0. Data, recipe and reader are in `policies/nano/`.

How often an attribute of {count} held-out captions is read from the generated frames, and from those of an untrained
denoiser:

| attribute | trained | untrained |
|---|---|---|
{rows}

Measured by `{command}`.
"""

ATTRIBUTES = ("colour", "shape", "motion", "size", "background")


class Reading(msgspec.Struct, frozen=True):
    """Share of captions whose attribute was read from the generated frames, per attribute."""

    rates: dict[str, float]
    frames: Tensor


@torch.no_grad()
def generate(
    pipe: WanPipeline, batch: list[Caption[Scene]], seed: int, steps: int, guidance: float
) -> Tensor:
    """Generate one clip a caption, (B, 3, F, H, W) in 0..1, each from its own seed."""
    parts = []
    for first in range(0, len(batch), 8):
        texts = [caption.text for caption in batch[first : first + 8]]
        generators = [torch.Generator().manual_seed(seed + first + k) for k in range(len(texts))]
        video = pipe(
            texts,
            height=clips.HEIGHT,
            width=clips.WIDTH,
            num_frames=clips.FRAMES,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=MAX_TOKENS,
            generator=generators,
            output_type="pt",
        ).frames
        parts.append(video.transpose(1, 2).float().cpu())
    return torch.cat(parts)


def measure(
    pipe: WanPipeline, batch: list[Caption[Scene]], seed: int, steps: int, guidance: float
) -> Reading:
    """Generate and read a batch of captions."""
    frames = generate(pipe, batch, seed, steps, guidance)
    seen = [read(clip) for clip in frames]
    rates = {
        name: sum(getattr(s, name) == getattr(c.scene, name) for s, c in zip(seen, batch, strict=True))
        / len(batch)
        for name in ATTRIBUTES
    }
    return Reading(rates=rates, frames=frames)


def contact_sheet(frames: Tensor, path: Path, rows: int = 8, columns: int = 2) -> None:
    """Draw the first clips, every second frame of each, as one picture."""
    strips = [torch.cat(list(clip[:, ::2].unbind(1)), dim=-1) for clip in frames[: rows * columns]]
    stacks = [torch.cat(strips[k : k + rows], dim=-2) for k in range(0, len(strips), rows)]
    pixels = (torch.cat(stacks, dim=-1).clamp(0, 1) * 255).round().byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


def card_text(model: str, pipe: WanPipeline, trained: Reading, untrained: Reading, command: str) -> str:
    """Return the model's card: what it is, what was measured, by which command."""
    sizes = [
        f"{name.replace('_', ' ')} {sum(p.numel() for p in getattr(pipe, name).parameters()) / 1e6:.2f} M"
        for name in ("transformer", "vae", "text_encoder")
    ]
    rows = [f"| {name} | {trained.rates[name]:.1%} | {untrained.rates[name]:.1%} |" for name in ATTRIBUTES]
    return CARD.format(
        model=model,
        sizes=", ".join(sizes),
        shape=f"{clips.FRAMES} frames of {clips.HEIGHT} x {clips.WIDTH}",
        count=len(trained.frames),
        rows="\n".join(rows),
        command=command,
    )


@click.command(help=__doc__)
@click.argument("model", type=click.Choice(MODELS))
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True), help="a trained folder; default: embedded"
)
@click.option("--captions", "count", type=int, default=64, show_default=True)
@click.option("--seed", type=int, default=1000, show_default=True)
@click.option("--steps", type=int, default=STEPS, show_default=True)
@click.option("--guidance", type=float, default=GUIDANCE, show_default=True)
@click.option("--sheet", type=click.Path(path_type=Path), help="where the contact sheet goes")
@click.option("--card", type=click.Path(path_type=Path), help="where the model card goes, Markdown")
def main(
    model: str,
    folder: Path | None,
    count: int,
    seed: int,
    steps: int,
    guidance: float,
    sheet: Path | None,
    card: Path | None,
) -> None:
    """Measure the trained and the untrained model and print both."""
    folder = folder or Path(__file__).parent / "models" / model
    batch = list(itertools.islice(captions("held-out", seed), count))
    pipe = WanPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    trained = measure(pipe, batch, seed, steps, guidance)
    pipe.transformer = build_transformer(model, seed).eval()
    untrained = measure(pipe, batch, seed, steps, guidance)
    print(f"{model}: {count} held-out captions, {steps} steps, guidance {guidance}")
    for name in ATTRIBUTES:
        print(f"  {name:<11} {trained.rates[name]:6.1%}   untrained {untrained.rates[name]:6.1%}")
    if sheet:
        contact_sheet(trained.frames, sheet)
    if card:
        command = f"python -m budc.policies.nano.check {model} --captions {count} --seed {seed}"
        card.write_text(card_text(model, pipe, trained, untrained, command), encoding="utf-8")


if __name__ == "__main__":
    main()
