"""Writing what was generated: methods side by side in mp4, gif or webp, or a row of frames for each in png or jpg.

Pictures under 256 pixels are enlarged four times without smoothing, so that pixels stay what they are.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from budc.schema.errors import OutputError
from budc.schema.files import new_file, write_atomic
from budc.schema.foreign_error import reason_of

SMALL, ENLARGED = 256, 4
SHORT, SLOW, USUAL = 33, 8, 16
"""Clips of up to `SHORT` frames play at `SLOW` frames per second, longer ones at `USUAL`."""
PNG_FRAMES = 9
_ANIMATED: Mapping[str, Mapping[str, Any]] = {
    ".gif": {"format": "GIF"},
    ".webp": {"format": "WEBP", "lossless": True},
}
_STILL: Mapping[str, Mapping[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
}
_LABEL_HEIGHT = 18
_BACKGROUND, _INK = 24, 235

Frames = NDArray[np.float32]
"""Frames of one clip or image, (F, H, W, 3) in 0..1."""
Pixels = NDArray[np.uint8]
Rows = Sequence[Sequence[tuple[str, Frames]]]
"""For each prompt, clips (F, H, W, 3) in 0..1 with their labels, which have as many lines each."""


def write_media(path: Path, rows: Rows) -> None:
    """Write the clips to `path`, of which the suffix decides the form. Raises OutputError."""
    write_atomic(path, _encoded(path.suffix, rows))


def write_new_media(folder: Path, stem: str, suffix: str, rows: Rows) -> Path:
    """Write the clips to a file that is not there yet: STEM, or STEM-2, STEM-3, …; return it. Raises OutputError."""
    data = _encoded(suffix, rows)
    path = new_file(folder, stem, suffix)
    try:
        write_atomic(path, data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _encoded(suffix: str, rows: Rows) -> bytes:
    suffix = suffix.lower()
    if suffix == ".mp4":
        return _h264(*_side_by_side(rows))
    if suffix in _ANIMATED:
        return _animation(*_side_by_side(rows), **_ANIMATED[suffix])
    return _sheet(rows, **_STILL[suffix])


def _sheet(rows: Rows, **options: Any) -> bytes:
    """A row of frames for each clip, the clips of a prompt under each other; long clips are thinned out."""
    bands = []
    for clips in rows:
        for label, clip in clips:
            picked = sorted({round(i) for i in np.linspace(0, len(clip) - 1, min(len(clip), PNG_FRAMES))})
            bands.append(_labelled(np.concatenate(list(_pixels(clip)[picked]), axis=1), label))
    file = io.BytesIO()
    Image.fromarray(np.concatenate(bands, axis=0)).save(file, **options)
    return file.getvalue()


def _side_by_side(rows: Rows) -> tuple[Pixels, int]:
    """Return the frames of a video and how many are shown a second: a column for each method, a row for each prompt."""
    count = len(rows[0][0][1])
    columns = [[(label, _pixels(clip)) for label, clip in clips] for clips in rows]
    frames = [
        np.concatenate(
            [
                np.concatenate([_labelled(clip[index], label) for label, clip in clips], axis=1)
                for clips in columns
            ],
            axis=0,
        )
        for index in range(count)
    ]
    return np.stack([_even(frame) for frame in frames]), SLOW if count <= SHORT else USUAL


def _animation(frames: Pixels, rate: int, **options: Any) -> bytes:
    first, *others = (Image.fromarray(frame) for frame in frames)
    file = io.BytesIO()
    first.save(file, save_all=True, append_images=others, duration=round(1000 / rate), loop=0, **options)
    return file.getvalue()


def _h264(frames: Pixels, rate: int) -> bytes:
    import imageio

    # ffmpeg writes to a path, and must not leave half a file at the one that was asked for.
    with tempfile.TemporaryDirectory(prefix="budc-") as folder:
        target = os.path.join(folder, "video.mp4")
        try:
            with imageio.get_writer(
                target, format="FFMPEG", fps=rate, codec="libx264", quality=8, macro_block_size=1
            ) as writer:
                for frame in frames:
                    writer.append_data(frame)
            return Path(target).read_bytes()
        except OSError as error:
            raise OutputError(
                f"the video could not be encoded: {reason_of(error)}", remedy="--out FILE.png"
            ) from error


def _pixels(clip: Frames) -> Pixels:
    pixels = (clip.clip(0, 1) * 255).round().astype(np.uint8)
    if max(clip.shape[1:3]) < SMALL:
        pixels = pixels.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
    return pixels


def _labelled(picture: Pixels, label: str) -> Pixels:
    if not label:
        return picture
    lines = label.split("\n")
    width, font = picture.shape[1], ImageFont.load_default()
    band = Image.new("RGB", (width, _LABEL_HEIGHT * len(lines)), (_BACKGROUND,) * 3)
    for index, line in enumerate(lines):
        shown = line
        while len(shown) > 2 and font.getlength(shown) > width - 8:
            shown = f"{shown[:-2]}…"
        ImageDraw.Draw(band).text((4, 3 + index * _LABEL_HEIGHT), shown, fill=(_INK,) * 3, font=font)
    return np.concatenate([np.asarray(band), picture], axis=0)


def _even(frame: Pixels) -> Pixels:
    """Repeat the last row or column where a size is odd: 4:2:0 video has none."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
