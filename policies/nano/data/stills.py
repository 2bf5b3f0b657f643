"""Procedural pictures: one shape of the clips at one of five places, on one of their textures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from budc.policies.nano.data import clips
from budc.policies.nano.data.pictures import Picture

OFFSET = 14.0
"""Distance in pixels of the four outer places from the centre of the picture."""
JITTER = 3.0
"""Largest deviation in pixels from a place, in x and y; twice that along the edge of an outer place."""
_DIRECTIONS = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "top": (0.0, -1.0),
    "bottom": (0.0, 1.0),
    "centre": (0.0, 0.0),
}


def render(picture: Picture, generator: torch.Generator) -> Tensor:
    """Draw one picture, (3, HEIGHT, WIDTH) in -1..1."""
    direction = torch.tensor(_DIRECTIONS[picture.place])
    along = direction.flip(0).abs()
    jitter = JITTER * (1 + along) * (2 * torch.rand(2, generator=generator) - 1)
    middle = torch.tensor([clips.WIDTH / 2, clips.HEIGHT / 2])
    centre = middle + OFFSET * direction + jitter
    grey = clips.background(picture.background, generator)
    return clips.paint(picture.shape, picture.size, picture.colour, centre[None], grey)[:, 0]


def batch(pictures: Sequence[Picture], generator: torch.Generator) -> Tensor:
    """Draw several pictures, (len(pictures), 3, HEIGHT, WIDTH) in -1..1."""
    return torch.stack([render(picture, generator) for picture in pictures])
