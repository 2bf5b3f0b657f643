"""Draw a policy's mask, and below it frames of the full run and of the policy from the same noise.

python benchmarks/picture.py ARTIFACT --trust PUBLIC_KEY --out docs/images/mask.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import timing
import torch
from command_line import COUNT, PATH, script
from PIL import Image, ImageDraw, ImageFont

from budc.policies.profile import load_profile, read_prompts
from budc.runtimes.diffusers.apply import applied
from budc.schema.artifact import open_artifact
from budc.schema.mask import StepMask
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

INK, PAPER, COMPUTED, REUSED = (30, 30, 30), (255, 255, 255), (31, 90, 160), (226, 230, 236)
SCALE = 2
TEXT = 18


def generate(pipe: Any, document: PolicyDocument, prompt: str, seed: int) -> np.ndarray:
    """Return the frames of one clip side by side, (H, F W, 3) uint8, enlarged."""
    shape = document.pipeline().shape
    frames = pipe(
        prompt,
        height=shape.height,
        width=shape.width,
        num_frames=shape.frames,
        num_inference_steps=document.sampler.steps,
        guidance_scale=document.sampler.guidance,
        max_sequence_length=shape.text_tokens,
        generator=torch.Generator().manual_seed(seed),
    ).frames[0]
    row = np.concatenate(list((np.asarray(frames) * 255).round().astype(np.uint8)), axis=1)
    return row.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def mask_strip(mask: StepMask, width: int) -> Image.Image:
    """Draw one cell a step: dark where the blocks are computed."""
    strip = Image.new("RGB", (width, 28), PAPER)
    draw = ImageDraw.Draw(strip)
    for step, computed in enumerate(mask):
        left, right = (round(k * width / mask.steps) for k in (step, step + 1))
        draw.rectangle((left + 1, 2, right - 2, 26), fill=COMPUTED if computed else REUSED)
    return strip


def line(text: str, width: int) -> Image.Image:
    """Draw one line of text."""
    band = Image.new("RGB", (width, TEXT), PAPER)
    ImageDraw.Draw(band).text((2, 3), text, fill=INK, font=ImageFont.load_default())
    return band


@script(__doc__)
@click.argument("artifact", type=click.Path(path_type=Path, exists=True))
@click.option("--trust", "public", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=PATH, required=True)
@click.option("--prompts", "count", type=COUNT, default=3, show_default=True, help="held-out prompts to draw")
def main(artifact: Path, public: Path, out: Path, count: int) -> None:
    """Generate and draw."""
    trust = Trust.from_pem(public)
    document = open_artifact(artifact, trust).document
    mask = document.policy.branches[0].step_mask()
    pipe, folder = timing.load(document)
    prompts = read_prompts(load_profile(document.pipeline().profile).prompts.held_out)[:count]
    full = [generate(pipe, document, prompt, seed) for seed, prompt in enumerate(prompts)]
    with applied(pipe, artifact, trust=trust, weights_dir=folder):
        cached = [generate(pipe, document, prompt, seed) for seed, prompt in enumerate(prompts)]
    width = full[0].shape[1]
    bands = [
        line(f"{mask.nfe} of {mask.steps} steps run the transformer blocks (dark); the others reuse", width),
        mask_strip(mask, width),
    ]
    for prompt, above, below in zip(prompts, full, cached, strict=True):
        bands += [line(f"{prompt}   (above: {mask.steps} steps computed, below: {mask.nfe})", width)]
        bands += [Image.fromarray(above), Image.fromarray(below)]
    picture = Image.new("RGB", (width, sum(band.height for band in bands)), PAPER)
    top = 0
    for band in bands:
        picture.paste(band, (0, top))
        top += band.height
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out, optimize=True)
    print(f"drew {out}")


if __name__ == "__main__":
    main()
