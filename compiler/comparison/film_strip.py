"""Film strips: clips as pictures of bounded size, the frames of each under each other, in WebP."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from budc.schema.kept_frames import MOST_BYTES, MOST_FRAMES

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

LONGEST_IMAGE, LONGEST_CLIP = 1024, 512
"""Pixels of the longer side, at most. A WebP has at most 16,383 rows, and so has a strip."""
_QUALITIES = (None, 90, 75)
"""As WebP takes them; None for lossless."""
_SMALLER = 0.75


class FilmStrips(NamedTuple):
    """Clips of one size as files."""

    height: int
    width: int
    """Of one frame."""
    frames: int
    lossless: bool
    files: list[bytes]


def film_strips(clips: Sequence[Tensor]) -> FilmStrips:
    """Return clips (3, frames, rows, columns), RGB in 0..1 and all of one shape, as files of at most `MOST_BYTES`.

    Of more than `MOST_FRAMES` frames as many are taken, evenly spread, the first and the last among them. What is too
    large is compressed, then scaled down, all clips alike.
    """
    _, count, rows, columns = clips[0].shape
    longest = LONGEST_IMAGE if count == 1 else LONGEST_CLIP
    scale = min(1.0, longest / max(rows, columns))
    while True:
        height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
        strips = [_strip(clip, height, width) for clip in clips]
        for quality in _QUALITIES:
            files = [_webp(strip, quality) for strip in strips]
            if max(map(len, files)) <= MOST_BYTES:
                return FilmStrips(height, width, min(count, MOST_FRAMES), quality is None, files)
        scale *= _SMALLER


def _strip(clip: Tensor, height: int, width: int) -> Image:
    from PIL import Image

    count = clip.shape[1]
    kept = min(count, MOST_FRAMES)
    picked = [round(index * (count - 1) / max(kept - 1, 1)) for index in range(kept)]
    strip = Image.new("RGB", (width, height * kept))
    pixels = (clip[:, picked].clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).cpu().numpy()
    for index, frame in enumerate(pixels):
        picture = Image.fromarray(frame)
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        strip.paste(picture, (0, height * index))
    return strip


def _webp(picture: Image, quality: int | None) -> bytes:
    file = io.BytesIO()
    options = {"lossless": True} if quality is None else {"quality": quality}
    picture.save(file, format="WEBP", method=4, **options)
    return file.getvalue()
