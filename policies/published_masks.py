"""Published masks: which of their steps the searches of others compute, read from `published-masks.json`.

    masks_for(load_profile("wan2.1"), steps=50, nfe=10)

They were found on the real models and serve as a warm start for a search; none was measured here. Models of one family
share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from importlib.resources import files

import msgspec

from budc.policies.profile import ModelProfile

MASKS_FILE = "published-masks.json"


class Publication(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the masks were published."""

    repository: str
    commit: str
    licence: str
    files: tuple[str, ...]
    note: str


class PublishedMask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published mask: the model it was found for, the method, and the steps that it computes.

    It serves all profiles whose family begins with `family`.
    """

    model: str
    family: str
    repository: str
    shape: dict[str, int | str]
    method: str
    nfe: int
    compute_steps: tuple[int, ...]


class PublishedMasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file: masks of `steps` steps each, and their source."""

    about: str
    source: Publication
    steps: int
    masks: tuple[PublishedMask, ...]


@cache
def published_masks() -> PublishedMasks:
    """Read the published masks."""
    content = files("budc.policies").joinpath(MASKS_FILE).read_bytes()
    return msgspec.json.decode(content, type=PublishedMasks)


def published_models() -> tuple[str, ...]:
    """Return the models that there are published masks for, in the file's order."""
    return tuple(dict.fromkeys(mask.model for mask in published_masks().masks))


def masks_for(profile: ModelProfile, steps: int, nfe: int) -> tuple[tuple[int, ...], ...]:
    """Return the computed steps of the masks published for a model at the nearest NFE, scaled to `steps` and `nfe`.

    Where two NFE are equally near, masks of both are returned. Equal ones are returned once. Empty if the model has
    none.
    """
    published = published_masks()
    own = [mask for mask in published.masks if profile.family.startswith(mask.family)]
    nearest = min((abs(mask.nfe - nfe) for mask in own), default=0)
    return tuple(
        dict.fromkeys(
            scale_steps(mask.compute_steps, published.steps, steps, nfe)
            for mask in own
            if abs(mask.nfe - nfe) == nearest
        )
    )


def scale_steps(
    compute_steps: Sequence[int], steps: int, target_steps: int, target_nfe: int
) -> tuple[int, ...]:
    """Scale the computed steps of a schedule of `steps` steps to one of `target_steps` that computes `target_nfe`.

    The i-th computed step is read as a piecewise linear function of i, at `target_nfe` evenly spread positions that
    include both ends, and rounded. Steps that would coincide are moved apart: the result is strictly ascending from 0.
    """
    segments, last = len(compute_steps) - 1, max(1, target_nfe - 1)
    scaled: list[int] = []
    for index in range(target_nfe):
        position = Fraction(index * segments, last)
        low = int(position)
        high = min(low + 1, segments)
        step = compute_steps[low] + (compute_steps[high] - compute_steps[low]) * (position - low)
        rounded = round(step * Fraction(target_steps - 1, max(1, steps - 1)))
        scaled.append(max(rounded, scaled[-1] + 1) if scaled else 0)
    # Moving apart may exceed the last step: each step is cut back so far that those after it still fit.
    room = target_steps - target_nfe
    return tuple(min(step, room + index) for index, step in enumerate(scaled))
