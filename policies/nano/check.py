"""Check that a nano model learned its language: `python -m budc.policies.nano.check wan2.1-nano`.

Generates held-out captions with the full sampler through the plain WanPipeline, reads the frames with the
procedural reader, and does the same with an untrained denoiser. Writes the figures into the model's card
and a contact sheet beside it.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import click
import msgspec
import torch
from diffusers import WanPipeline
from PIL import Image
from torch import Tensor

from budc.policies.nano import clips
from budc.policies.nano.captions import MAX_TOKENS, Caption, captions
from budc.policies.nano.components import GUIDANCE, MODELS, STEPS, build_transformer
from budc.policies.nano.reader import read

ATTRIBUTES = ("colour", "shape", "motion", "size", "background")


class Reading(msgspec.Struct, frozen=True):
    """Share of captions whose attribute was read from the generated frames, per attribute."""

    rates: dict[str, float]
    frames: Tensor


@torch.no_grad()
def generate(pipe: WanPipeline, batch: list[Caption], seed: int, steps: int, guidance: float) -> Tensor:
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


def measure(pipe: WanPipeline, batch: list[Caption], seed: int, steps: int, guidance: float) -> Reading:
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
@click.option("--card", type=click.Path(path_type=Path), help="where the figures go, as JSON")
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
        figures = {"captions": count, "steps": steps, "guidance": guidance, "seed": seed}
        rates = {"trained": trained.rates, "untrained": untrained.rates}
        card.write_text(json.dumps({**figures, **rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
