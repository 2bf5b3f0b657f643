"""Noise: the latents that a diffusers pipeline starts from, in numpy.

A pipeline draws its noise from `torch.Generator().manual_seed(seed)` on the CPU. That is MT19937, of whose 32 bits
24 become a uniform value, and the Box-Muller transform, which makes 16 of these normal at a time. Values here differ
from torch's by rounding alone, about 1e-6; torch's own differ as much between machines.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK = 16
"""How many uniform values torch transforms at a time: the first half are radii, the second half angles."""


def seeded_noise(shape: Sequence[int], seed: int) -> NDArray[np.float32]:
    """Return standard normal values as `torch.randn(shape, generator=torch.Generator().manual_seed(seed))`.

    Raises:
        ValueError: `shape` has fewer than 16 values, which torch draws in another way.
    """
    size = math.prod(shape)
    if size < _BLOCK:
        raise ValueError(f"noise of shape {tuple(shape)} has {size} values, expected {_BLOCK} or more")
    tail = size % _BLOCK
    uniform = _uniform(seed, size + (_BLOCK if tail else 0))
    values = _normal(uniform[: size - tail])
    if tail:
        # torch draws the last, incomplete block again as a whole one, which overwrites values before it.
        values = np.concatenate([values[: size - _BLOCK], _normal(uniform[size:])])
    return values.reshape(shape)


def pack_latents(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return latents (N, channels, rows, columns) in 2 × 2 cells, (N, rows · columns / 4, 4 · channels)."""
    batch, channels, rows, columns = latents.shape
    cells = latents.reshape(batch, channels, rows // 2, 2, columns // 2, 2).transpose(0, 2, 4, 1, 3, 5)
    return cells.reshape(batch, rows * columns // 4, 4 * channels)


def _uniform(seed: int, size: int) -> NDArray[np.float32]:
    # numpy's frozen legacy generator seeds MT19937 by one 32 bit number as torch does.
    words = np.random.RandomState(seed & 0xFFFFFFFF).randint(0, 1 << 32, size, dtype=np.uint32)
    return ((words & 0xFFFFFF) * 2.0**-24).astype(np.float32)


def _normal(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    radii, angles = uniform.reshape(-1, 2, _BLOCK // 2).astype(np.float64).swapaxes(0, 1)
    radii, angles = np.sqrt(-2 * np.log1p(-radii)), 2 * np.pi * angles
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1).astype(np.float32).reshape(-1)
