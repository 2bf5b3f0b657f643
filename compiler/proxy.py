"""`--proxy`: a smaller size of output, at which masks are searched before a short search at the real one.

parse_proxy("frames=17,size=272x480", profile)      # either or both; the size is HEIGHTxWIDTH, as that of --shape
"""

from __future__ import annotations

import re

from budc.compiler.models.fit import Grid
from budc.compiler.search import GIVEN, GIVEN_FITTED, algorithm
from budc.compiler.shapes import OutputSize
from budc.option_names import option
from budc.policies.profile import ModelProfile
from budc.schema.errors import UnsupportedModel, UsageError

_FORMS = {"frames": re.compile(r"([0-9]{1,5})\Z"), "size": re.compile(r"([0-9]{1,5})x([0-9]{1,5})\Z")}
_REMEDY = "write frames=17, size=HEIGHTxWIDTH such as size=272x480, or both with a comma between them"


def parse_proxy(text: str, profile: ModelProfile) -> OutputSize:
    """Return the size of a proxy for the profile's output.

    Raises:
        UsageError: it is malformed, has frames where the model makes images, or is not smaller than the output.
    """
    found: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        match = _FORMS[name].match(value) if name in _FORMS else None
        if match is None or name in found or not all(1 <= int(number) <= 65536 for number in match.groups()):
            twice = "is there twice" if match is not None and name in found else "is no size of a proxy"
            raise UsageError(f"{option('proxy')}: {part.strip()!r} {twice}", remedy=_REMEDY)
        found[name] = tuple(map(int, match.groups()))
    real = OutputSize(profile.height, profile.width, profile.frames)
    if "frames" in found and real.frames == 1:
        raise UsageError(
            f"{option('proxy')}: frames are given, but {profile.name} makes images",
            remedy="write size=HEIGHTxWIDTH alone",
        )
    proxy = OutputSize(*found.get("size", real[:2]), *found.get("frames", real[2:]))
    if proxy == real or any(ours > theirs for ours, theirs in zip(proxy, real, strict=True)):
        raise UsageError(
            f"{option('proxy', text)}: {in_words(proxy)}, which is not smaller than the output, {in_words(real)}",
            remedy="give fewer frames, or a smaller height and width",
        )
    return proxy


def check_searched(search: str, *, separate: bool = False, few_masks: bool = False) -> None:
    """Refuse what leaves nothing to be searched at the size of a proxy. Raises UsageError."""
    if search in (GIVEN, GIVEN_FITTED):
        raise UsageError(
            f"{option('proxy')}: the mask is given, so none is searched",
            remedy=f"leave out {option('proxy')} or {option('mask')}",
        )
    if not algorithm(search).arbitrated:
        raise UsageError(
            f"{option('proxy')}: {option('search', search)} is a method to compare with, and is run as published",
            remedy=f"leave it out, or use {option('search', 'joint')}",
        )
    if few_masks:
        raise UsageError(
            f"{option('proxy')}: the engine of {option('for')} follows few masks, and each is tried at the real size",
            remedy=f"leave out {option('proxy')}",
        )
    if separate:
        raise UsageError(
            f"{option('proxy')}: it finds masks that all branches share",
            remedy=f"leave out {option('proxy')} or {option('branches', 'separate')}",
        )


def check_grid(proxy: OutputSize, grid: Grid, name: str) -> None:
    """Refuse a proxy that the model `name` would round. Raises UnsupportedModel."""
    height, width, frames = proxy
    for value in (height, width):
        if value % grid.cell:
            near = [max(1, round(side / grid.cell)) * grid.cell for side in (height, width)]
            raise UnsupportedModel(
                f"{option('proxy')}: size {height}x{width}, but {name} makes multiples of {grid.cell}",
                remedy=f"size={near[0]}x{near[1]}",
            )
    if grid.interval and (frames - 1) % grid.interval:
        near_frames = round((frames - 1) / grid.interval) * grid.interval + 1
        raise UnsupportedModel(
            f"{option('proxy')}: {frames} frames, but {name} makes one and a multiple of {grid.interval}",
            remedy=f"frames={near_frames}",
        )


def in_words(size: OutputSize) -> str:
    """Return a size as people write it: 272x480, 17 frames."""
    clip = f", {size.frames} frame{'s' * (size.frames > 1)}" if size.frames > 1 else ""
    return f"{size.height}x{size.width}{clip}"
