"""Check what an embedded model generates: `python -m budc.policies.nano.evaluation.check wan2.1-nano`.

Generates held-out captions with the full sampler and the plain pipeline, reads the frames with the procedural reader,
and does the same with an untrained denoiser. `--card` writes the figures into the model's card, `--sheet` draws the
samples.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click
import msgspec
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from budc.policies.nano.data.captions import Caption
from budc.policies.nano.evaluation.subjects import SUBJECTS, Subject

CARD = """\
# {model}

An embedded sibling of {sibling} on the real pipeline classes, trained from scratch on procedural {data}.
Parameters: {sizes}.
It exists so that policies can be searched, signed, run and tested on any machine. It can generate nothing else.
Licence: Apache-2.0. Data, recipe and reader are in `policies/nano/`.

How often an attribute of {count} held-out captions is read from the generated frames, and from those of an untrained
denoiser:

| attribute | trained | untrained |
|---|---|---|
{rows}

Measured by `{command}`.
"""


class Reading(msgspec.Struct, frozen=True):
    """For each attribute, the share of captions whose value was read from the generated frames; and the frames."""

    rates: dict[str, float]
    frames: Tensor


@torch.no_grad()
def measure(
    subject: Subject,
    pipe: DiffusionPipeline,
    batch: list[Caption[Any]],
    seed: int,
    steps: int,
    guidance: float,
) -> Reading:
    """Generate captions, each from a seed of its own, and read the frames."""
    texts = [caption.text for caption in batch]
    frames = torch.cat(
        [
            subject.generate(pipe, texts[first : first + 8], seed + first, steps, guidance)
            for first in range(0, len(texts), 8)
        ]
    )
    readings = [subject.read(sample) for sample in frames]
    rates = {
        name: sum(getattr(r, name) == getattr(c.scene, name) for r, c in zip(readings, batch, strict=True))
        / len(batch)
        for name in subject.attributes
    }
    return Reading(rates=rates, frames=frames)


def contact_sheet(frames: Tensor, path: Path, rows: int = 8, columns: int = 2) -> None:
    """Save the first samples as one picture, with every second frame of each."""
    strips = [torch.cat(list(clip[:, ::2].unbind(1)), dim=-1) for clip in frames[: rows * columns]]
    stacks = [torch.cat(strips[k : k + rows], dim=-2) for k in range(0, len(strips), rows)]
    pixels = (torch.cat(stacks, dim=-1).clamp(0, 1) * 255).round().byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


def card_text(model: str, pipe: DiffusionPipeline, trained: Reading, untrained: Reading, command: str) -> str:
    """Return the model's card: what it is, what was measured, and by which command."""
    subject = SUBJECTS[model]
    sizes = [
        f"{name.replace('_', ' ')} {sum(p.numel() for p in pipe.components[name].parameters()) / 1e6:.2f} M"
        for name in ("transformer", "vae", "text_encoder", "text_encoder_2")
        if name in pipe.components
    ]
    rows = [
        f"| {name} | {trained.rates[name]:.1%} | {untrained.rates[name]:.1%} |" for name in subject.attributes
    ]
    return CARD.format(
        model=model,
        sibling=subject.sibling,
        data=subject.data,
        sizes=", ".join(sizes),
        count=len(trained.frames),
        rows="\n".join(rows),
        command=command,
    )


@click.command(help=__doc__)
@click.argument("model", type=click.Choice(list(SUBJECTS)))
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True), help="a trained folder; default: embedded"
)
@click.option("--captions", "count", type=int, default=64, show_default=True)
@click.option("--seed", type=int, default=1000, show_default=True)
@click.option("--steps", type=int, help="default: the model's own")
@click.option("--guidance", type=float, help="default: the model's own")
@click.option("--sheet", type=click.Path(path_type=Path), help="file for the samples, a picture")
@click.option("--card", type=click.Path(path_type=Path), help="file for the model card, Markdown")
def main(
    model: str,
    folder: Path | None,
    count: int,
    seed: int,
    steps: int | None,
    guidance: float | None,
    sheet: Path | None,
    card: Path | None,
) -> None:
    """Measure the trained and the untrained model and print both."""
    subject = SUBJECTS[model]
    folder = folder or Path(__file__).parents[1] / "models" / model
    steps = subject.steps if steps is None else steps
    guidance = subject.guidance if guidance is None else guidance
    batch = list(itertools.islice(subject.captions("held-out", seed), count))
    pipe = subject.pipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    trained = measure(subject, pipe, batch, seed, steps, guidance)
    pipe.transformer = subject.untrained(seed).eval()
    untrained = measure(subject, pipe, batch, seed, steps, guidance)
    print(f"{model}: {count} held-out captions, {steps} steps, guidance {guidance}")
    for name in subject.attributes:
        print(f"  {name:<11} {trained.rates[name]:6.1%}   untrained {untrained.rates[name]:6.1%}")
    if sheet:
        contact_sheet(trained.frames, sheet, *(() if trained.frames.shape[2] > 1 else (2, 8)))
    if card:
        command = f"python -m budc.policies.nano.evaluation.check {model} --captions {count} --seed {seed}"
        card.write_text(card_text(model, pipe, trained, untrained, command), encoding="utf-8")


if __name__ == "__main__":
    main()
