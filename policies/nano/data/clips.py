"""Procedural clips: a coloured shape that moves over a textured background, drawn from a scene.

Shapes are signed distance functions, so edges are anti-aliased and positions continuous. What the caption does not say
(position, phase of the orbit, tone of the background) is drawn from the generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from budc.policies.nano.data.captions import Scene

HEIGHT = WIDTH = 64
FRAMES = 9
RADII = {"small": 10.0, "large": 14.0}
"""Half extent of a shape, pixels."""
TRAVEL = 24.0
"""Path length of a straight motion over the clip, pixels."""
ORBIT = 8.0
"""Radius of the curved motion, pixels; a clip covers one turn clockwise."""
RGB = {
    "red": (0.92, 0.13, 0.13),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.95, 0.88, 0.10),
    "purple": (0.75, 0.15, 0.85),
    "cyan": (0.10, 0.85, 0.90),
}
_HEADINGS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}


def distance(shape: str, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Return the signed distance in pixels (negative inside) to a shape at the origin; y points down."""
    if shape == "circle":
        return torch.hypot(x, y) - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.88 * radius
    if shape == "triangle":
        slope = math.sqrt(3) / 2
        sides = slope * x.abs() - 0.5 * y - 0.55 * radius
        return torch.maximum(sides, y - 0.75 * radius)
    if shape == "cross":
        arm = 0.36 * radius
        bar = torch.maximum(x.abs() - radius, y.abs() - arm)
        post = torch.maximum(y.abs() - radius, x.abs() - arm)
        return torch.minimum(bar, post)
    raise ValueError(f"no such shape: {shape}")


def path(scene: Scene, generator: torch.Generator) -> Tensor:
    """Return the centres of the shape, (FRAMES, 2) as x, y in pixels; the shape is always inside the frame."""
    time = torch.linspace(0.0, 1.0, FRAMES)
    margin = RADII[scene.size] + 1.0
    draw = torch.rand(3, generator=generator)
    if scene.motion == "around":
        span = WIDTH - 2 * (margin + ORBIT)
        centre = margin + ORBIT + span * draw[:2]
        angle = 2 * math.pi * (time * (FRAMES - 1) / FRAMES + draw[2])
        return centre + ORBIT * torch.stack([angle.cos(), angle.sin()], dim=-1)
    heading = torch.tensor(_HEADINGS[scene.motion])
    reach = TRAVEL * heading.abs()
    low = margin + reach / 2
    middle = low + (WIDTH - 2 * low) * draw[:2]
    return middle + TRAVEL * heading * (time[:, None] - 0.5)


def background(kind: str, generator: torch.Generator) -> Tensor:
    """Return a grey texture, (HEIGHT, WIDTH) in 0..1, with one of two phases and a random brightness."""
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    draw = torch.rand(2, generator=generator)
    phase = int(draw[0] < 0.5)
    cell = (x // 8 + phase) % 2 if kind == "striped" else (x // 8 + y // 8 + phase) % 2
    return 0.42 + 0.10 * (float(draw[1]) - 0.5) + 0.14 * (cell.float() - 0.5)


def render(scene: Scene, generator: torch.Generator) -> Tensor:
    """Draw one clip, (3, FRAMES, HEIGHT, WIDTH) in -1..1."""
    centres = path(scene, generator)
    grey = background(scene.background, generator)
    return paint(scene.shape, scene.size, scene.colour, centres, grey)


def paint(shape: str, size: str, colour: str, centres: Tensor, grey: Tensor) -> Tensor:
    """Draw a shape on a grey texture at each centre (F, 2), x and y in pixels: (3, F, HEIGHT, WIDTH) in -1..1."""
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    away = distance(shape, x - centres[:, 0, None, None], y - centres[:, 1, None, None], RADII[size])
    cover = (0.5 - away).clamp(0, 1)
    rgb = torch.tensor(RGB[colour])[:, None, None, None]
    return (grey * (1 - cover) + rgb * cover) * 2 - 1


def batch(scenes: Sequence[Scene], generator: torch.Generator) -> Tensor:
    """Draw several clips, (len(scenes), 3, FRAMES, HEIGHT, WIDTH) in -1..1."""
    return torch.stack([render(scene, generator) for scene in scenes])
