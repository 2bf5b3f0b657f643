"""Starts: the masks that a search tries before it knows anything, and those that it may try at any time.

Good masks compute more often in the beginning, where the latents change most. How much more differs between models.
Three sources are at hand: power laws (as Karras et al. spread noise levels, arXiv 2206.00364, equation 5), shortest
paths through the reference run's reuse errors, weighted by powers of the step's size, and what others have published.
The most different ones are rolled out first. The others are ranked by the surrogate, with the neighbours of the best.
"""

from __future__ import annotations

from budc.compiler.search.dp import shortest_path
from budc.compiler.search.space import Space

START_POWER = 1.5
"""Of the power law to start from: closer in the beginning, as good masks were on most models."""

START_PATHS = (0.0, 1.0, 2.0)
"""Powers of the step's size in the costs whose shortest paths are starts."""

RANKED_POWERS = (1.0, 1.25, 1.5, 1.75, 2.0)
"""Of the power laws that are ranked."""

PATH_POWERS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Powers of the step's size in the costs whose shortest paths are ranked."""


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
    """Return the masks to start from, without repeats, as compute steps.

    Without reuse errors, evenly spread steps take the place of shortest paths.
    """
    spaced = power_spaced(space.steps, space.nfe, START_POWER)
    paths = _paths(space, START_PATHS) or [power_spaced(space.steps, space.nfe, 1.0)]
    return _through_fixed(space, [spaced, *paths, *space.starts])


def ranked_masks(space: Space) -> list[tuple[int, ...]]:
    """Return the masks that the surrogate ranks wherever the best mask is, without repeats, as compute steps."""
    spaced = [power_spaced(space.steps, space.nfe, power) for power in RANKED_POWERS]
    return _through_fixed(space, [*spaced, *space.published_masks, *_paths(space, PATH_POWERS)])


def _paths(space: Space, powers: tuple[float, ...]) -> list[tuple[int, ...]]:
    payload = space.payloads[-1]
    return [shortest_path(space, payload, power) for power in powers] if payload in space.errors else []


def _through_fixed(space: Space, masks: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(space.through(steps) for steps in masks))
