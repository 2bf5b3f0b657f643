"""A procedural reader of clips and pictures: it says which attributes they show.

It knows the drawing rules and no model. Saturated pixels are the shape. The nearest hue gives its colour, the template
that overlaps best its kind and size, the path of its centre of mass its motion.
"""

from __future__ import annotations

import colorsys
from functools import cache

import torch
from torch import Tensor

from budc.policies.nano.data import clips
from budc.policies.nano.data.captions import SHAPES, Scene
from budc.policies.nano.data.pictures import Picture

SATURATED = 0.25
"""Difference between the largest and the smallest channel above which a pixel belongs to the shape."""
UNREADABLE = "?"
_OUTER = 7.0
"""Distance in pixels from the middle between the centre (under 5) and an outer place (11 to 17)."""
_STRAIGHT = 12.0
"""Net displacement in pixels between a full turn (under 6) and a straight motion (24)."""


def _hue(rgb: tuple[float, float, float]) -> float:
    return colorsys.rgb_to_hsv(*rgb)[0]


def _colour(frames: Tensor, mask: Tensor) -> str:
    rgb = (frames * mask[None]).sum((1, 2, 3)) / mask.sum()
    hue = _hue(tuple(rgb.clamp(0, 1).tolist()))

    def away(name: str) -> float:
        gap = abs(_hue(clips.RGB[name]) - hue)
        return min(gap, 1 - gap)

    return min(clips.RGB, key=away)


def _centres(mask: Tensor) -> Tensor:
    """Centre of mass of every frame, (F, 2) as x, y in pixels."""
    area = mask.sum((1, 2)).clamp(min=1e-6)
    grid = torch.arange(mask.shape[-1]) + 0.5
    return torch.stack([(mask.sum(1) * grid).sum(-1) / area, (mask.sum(2) * grid).sum(-1) / area], dim=-1)


@cache
def _offset(shape: str, radius: float) -> tuple[float, float]:
    """Centre of mass of a shape relative to its origin, pixels."""
    y, x = torch.meshgrid(torch.arange(-24, 24) + 0.5, torch.arange(-24, 24) + 0.5, indexing="ij")
    inside = (clips.distance(shape, x, y, radius) < 0).float()
    return float((x * inside).sum() / inside.sum()), float((y * inside).sum() / inside.sum())


def _overlap(mask: Tensor, centres: Tensor, shape: str, radius: float) -> float:
    """Mean intersection over union of the mask with a template at the mask's own centre of mass."""
    y, x = torch.meshgrid(torch.arange(mask.shape[1]) + 0.5, torch.arange(mask.shape[2]) + 0.5, indexing="ij")
    dx, dy = _offset(shape, radius)
    away = clips.distance(
        shape, x - centres[:, 0, None, None] + dx, y - centres[:, 1, None, None] + dy, radius
    )
    template = (away < 0).float()
    overlap = torch.minimum(mask, template).sum((1, 2))
    return float((overlap / torch.maximum(mask, template).sum((1, 2)).clamp(min=1)).mean())


def _shape(mask: Tensor, centres: Tensor) -> tuple[str, str]:
    radii = [8.0 + 0.5 * k for k in range(17)]
    _, shape, radius = max((_overlap(mask, centres, s, r), s, r) for s in SHAPES for r in radii)
    return shape, min(clips.RADII, key=lambda size: abs(clips.RADII[size] - radius))


def _motion(centres: Tensor) -> str:
    dx, dy = (centres[-1] - centres[0]).tolist()
    length = float((centres[1:] - centres[:-1]).norm(dim=-1).sum())
    if max(abs(dx), abs(dy)) < _STRAIGHT:
        return "around" if length > 2 * _STRAIGHT else UNREADABLE
    if abs(dx) > 1.5 * abs(dy):
        return "right" if dx > 0 else "left"
    if abs(dy) > 1.5 * abs(dx):
        return "down" if dy > 0 else "up"
    return UNREADABLE


def _background(frames: Tensor, mask: Tensor) -> str:
    grey, free = frames.mean(0), 1 - mask
    both = free[:, 8:] * free[:, :-8]
    change = ((grey[:, 8:] - grey[:, :-8]).abs() * both).sum() / both.sum().clamp(min=1)
    return "checkered" if float(change) > 0.07 else "striped"


def read(frames: Tensor) -> Scene:
    """Read a clip, (3, F, H, W) in 0..1; an attribute that cannot be read is `UNREADABLE`."""
    spread = frames.amax(0) - frames.amin(0)
    mask = (spread > SATURATED).float()
    area = mask.mean((1, 2))
    if float(area.min()) < 0.01 or float(area.max()) > 0.5:
        return Scene(UNREADABLE, UNREADABLE, UNREADABLE, UNREADABLE, _background(frames, mask))
    centres = _centres(mask)
    shape, size = _shape(mask, centres)
    return Scene(_colour(frames, mask), shape, size, _motion(centres), _background(frames, mask))


def _place(frame: Tensor) -> str:
    mask = (frame.amax(0) - frame.amin(0) > SATURATED).float()[None]
    dx, dy = (_centres(mask)[0] - torch.tensor([clips.WIDTH / 2, clips.HEIGHT / 2])).tolist()
    if max(abs(dx), abs(dy)) < _OUTER:
        return "centre"
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "bottom" if dy > 0 else "top"


def read_picture(frame: Tensor) -> Picture:
    """Read a picture, (3, H, W) in 0..1; an attribute that cannot be read is `UNREADABLE`."""
    seen = read(frame[:, None])
    place = UNREADABLE if seen.colour == UNREADABLE else _place(frame)
    return Picture(seen.colour, seen.shape, seen.size, place, seen.background)
