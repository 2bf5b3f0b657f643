"""Sizes of output that one policy is to be for: HEIGHTxWIDTH, and xFRAMES for videos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from budc.option_names import option
from budc.policies.profile import ModelProfile
from budc.schema.errors import UsageError

MAX_SIZES = 17
"""The first size and as many further ones as an artifact holds."""
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})(?:x([0-9]{1,5}))?\Z")


class OutputSize(NamedTuple):
    """A size of output; `frames` is 1 for images."""

    height: int
    width: int
    frames: int

    def of(self, profile: ModelProfile) -> ModelProfile:
        """Return the profile with this size."""
        return msgspec.structs.replace(profile, **self._asdict())


def parse_sizes(texts: Sequence[str], profile: ModelProfile) -> tuple[OutputSize, ...]:
    """Return the sizes that the user names; one without frames has the profile's.

    Raises:
        UsageError: one is malformed, out of range or there twice, or there are too many.
    """
    sizes: list[OutputSize] = []
    for text in texts:
        match = _SIZE.match(text.strip())
        if match is None or not all(1 <= int(number or 1) <= 65536 for number in match.groups()):
            raise UsageError(
                f"{option('shape')}: {text!r} is no size",
                remedy="write HEIGHTxWIDTH, and xFRAMES for a video, such as 480x832x81",
            )
        size = OutputSize(int(match[1]), int(match[2]), int(match[3] or profile.frames))
        if size in sizes:
            raise UsageError(f"{option('shape')}: {text} is there twice", remedy="give each size once")
        if profile.frames == 1 and size.frames != 1:
            raise UsageError(f"{option('shape')}: {profile.name} makes images", remedy="write HEIGHTxWIDTH")
        sizes.append(size)
    if len(sizes) > MAX_SIZES:
        raise UsageError(f"{option('shape')}: {len(sizes)} sizes, at most {MAX_SIZES}", remedy="give fewer")
    return tuple(sizes)
