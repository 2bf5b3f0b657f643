"""For the check of each embedded model: how it generates, which captions it knows, how its frames are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
import torch
from diffusers import DiffusionPipeline, FluxPipeline, WanPipeline
from torch import Tensor

from budc.policies.nano.architectures import flux, wan
from budc.policies.nano.data import captions, clips, pictures
from budc.policies.nano.data.captions import Caption, Split
from budc.policies.nano.evaluation import reader


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """An embedded model and what checks it."""

    sibling: str
    """The real model of which it is a small sibling."""
    data: str
    """What it was trained on and generates."""
    pipeline: type[DiffusionPipeline]
    steps: int
    guidance: float
    attributes: tuple[str, ...]
    captions: Callable[[Split, int], Iterator[Caption[Any]]]
    settings: Mapping[str, Any]
    """Arguments of the pipeline's call, beside prompt, noise, steps and guidance."""
    frames: Callable[[Any], Tensor]
    """The pipeline's output -> frames (B, 3, F, H, W) in 0..1."""
    read: Callable[[Tensor], Any]
    """Frames (3, F, H, W) in 0..1 -> what they show."""
    untrained: Callable[[int], torch.nn.Module]
    """A seed -> a denoiser of the same configuration that has learned nothing."""

    def generate(
        self, pipe: DiffusionPipeline, texts: list[str], first_seed: int, steps: int, guidance: float
    ) -> Tensor:
        """Generate one sample for each text, (B, 3, F, H, W) in 0..1, each from a seed of its own."""
        generators = [torch.Generator().manual_seed(first_seed + index) for index in range(len(texts))]
        output = pipe(
            texts,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="pt",
            **self.settings,
        )
        return self.frames(output).float().cpu()


def _wan(name: str) -> Subject:
    return Subject(
        sibling="Wan2.1",
        data=f"clips of one moving shape: {clips.FRAMES} frames of {clips.HEIGHT} x {clips.WIDTH}",
        pipeline=WanPipeline,
        steps=wan.STEPS,
        guidance=wan.GUIDANCE,
        attributes=("colour", "shape", "motion", "size", "background"),
        captions=captions.captions,
        settings={
            "height": clips.HEIGHT,
            "width": clips.WIDTH,
            "num_frames": clips.FRAMES,
            "max_sequence_length": captions.MAX_TOKENS,
        },
        frames=lambda output: output.frames.transpose(1, 2),
        read=reader.read,
        untrained=partial(wan.build_transformer, name),
    )


_FLUX = Subject(
    sibling="FLUX.1 [dev]",
    data=f"pictures of one shape: {clips.HEIGHT} x {clips.WIDTH} pixels",
    pipeline=FluxPipeline,
    steps=flux.STEPS,
    guidance=flux.GUIDANCE,
    attributes=("colour", "shape", "place", "size", "background"),
    captions=pictures.captions,
    settings={
        "height": clips.HEIGHT,
        "width": clips.WIDTH,
        "max_sequence_length": pictures.MAX_TOKENS,
    },
    frames=lambda output: output.images[:, :, None],
    read=lambda frames: reader.read_picture(frames[:, 0]),
    untrained=flux.build_transformer,
)

SUBJECTS: Mapping[str, Subject] = {
    **{name: _wan(name) for name in wan.MODELS},
    flux.MODEL: _FLUX,
}
"""Model name -> what checks it."""
