"""Starts: the masks that a search tries before it knows anything.

Good masks compute more often in the beginning, where the latents change most. How much more differs between models, so
several are tried: spread evenly, by a power law (as Karras et al. spread noise levels, arXiv 2206.00364, equation 5),
the shortest path through the reference run's reuse errors, and what others have published.
"""

from __future__ import annotations

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.space import Space

POWERS = (1.0, 1.5)
"""Of the masks to start from: spread evenly, and closer in the beginning, as good masks were on most models."""


def power_spaced(steps: int, nfe: int, power: float) -> tuple[int, ...]:
    """Return steps spread by a power law from the first to the last but one, as closely as they fit in the beginning.

    The power is at least 1, which spreads them evenly. The last steps need a computed one: old payloads serve badly.
    """
    last = max(nfe - 1, steps - 2)
    spaced: list[int] = []
    for index in range(nfe):
        step = round(last * (index / max(1, nfe - 1)) ** power)
        spaced.append(max(step, spaced[-1] + 1) if spaced else 0)
    return tuple(spaced)


def starting_masks(space: Space) -> list[tuple[int, ...]]:
    """Return the masks to start from, without repeats, as compute steps."""
    masks = [power_spaced(space.steps, space.nfe, power) for power in POWERS]
    if space.payloads[-1] in space.errors:
        masks.append(shortest_path(space, space.payloads[-1]))
    masks.extend(space.published_masks)
    return list(dict.fromkeys(space.through(steps) for steps in masks))
