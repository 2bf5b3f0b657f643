"""Schedules that others have published: which of `steps` steps their searches compute.

    schedules_for(load_profile("wan2.1"), steps=50, nfe=10)

They are facts of the real models (`published-masks.json`, with its source), good for a warm start: none was
measured here, and the siblings of a model take its schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from importlib.resources import files

import msgspec

from budc.policies.profile import ModelProfile

MASKS_FILE = "published-masks.json"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the schedules are from."""

    repository: str
    commit: str
    licence: str
    files: tuple[str, ...]
    note: str


class PublishedMask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published schedule: what it was found for, by which method, and the steps that it computes.

    It is taken for profiles whose family begins with `family`.
    """

    model: str
    family: str
    repository: str
    shape: dict[str, int | str]
    method: str
    nfe: int
    compute_steps: tuple[int, ...]


class PublishedMasks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: schedules of `steps` steps, and their source."""

    about: str
    source: Source
    steps: int
    schedules: tuple[PublishedMask, ...]


@cache
def published_masks() -> PublishedMasks:
    """Read the published schedules."""
    content = files("budc.policies").joinpath(MASKS_FILE).read_bytes()
    return msgspec.json.decode(content, type=PublishedMasks)


def published_models() -> tuple[str, ...]:
    """Return the models that there are schedules for, in the file's order."""
    return tuple(dict.fromkeys(schedule.model for schedule in published_masks().schedules))


def masks_for(profile: ModelProfile, steps: int, nfe: int) -> tuple[tuple[int, ...], ...]:
    """Return the schedules published for a model at the nearest NFE, scaled to `steps` and `nfe`, each once.

    Where two NFE are equally near, both are taken. Empty where the model has none.
    """
    known = published_masks()
    found = [schedule for schedule in known.schedules if profile.family.startswith(schedule.family)]
    nearest = min((abs(schedule.nfe - nfe) for schedule in found), default=0)
    return tuple(
        dict.fromkeys(
            scaled(schedule.compute_steps, known.steps, steps, nfe)
            for schedule in found
            if abs(schedule.nfe - nfe) == nearest
        )
    )


def scaled(compute_steps: Sequence[int], steps: int, wanted_steps: int, wanted_nfe: int) -> tuple[int, ...]:
    """Return a schedule of `steps` steps stretched to `wanted_steps`, of which it computes `wanted_nfe`.

    The i-th computed step is a piecewise linear function of i; it is read at as many places, evenly spread, the
    ends included, and rounded. Steps that fall together are moved apart, so that they ascend strictly from 0.
    """
    segments, last = len(compute_steps) - 1, max(1, wanted_nfe - 1)
    found: list[int] = []
    for index in range(wanted_nfe):
        place = Fraction(index * segments, last)
        low = int(place)
        high = min(low + 1, segments)
        step = compute_steps[low] + (compute_steps[high] - compute_steps[low]) * (place - low)
        rounded = round(step * Fraction(wanted_steps - 1, max(1, steps - 1)))
        found.append(max(rounded, found[-1] + 1) if found else 0)
    # What was pushed beyond the end comes back: room for those that follow is left to every step.
    room = wanted_steps - wanted_nfe
    return tuple(min(step, room + index) for index, step in enumerate(found))
