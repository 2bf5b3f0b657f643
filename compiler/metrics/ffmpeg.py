"""Filters of ffmpeg that compare two clips, with the program that imageio-ffmpeg brings.

Frames are rounded to 8 bits and become Y'CbCr 4:2:0 by BT.709, limited range, at 24 frames a second.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg

from budc.schema.errors import MissingExtra

if TYPE_CHECKING:
    from torch import Tensor

LOG = "log"
"""What a filter is told to call the file that it writes."""
_YUV = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p"
_REMEDY = "pip install 'budc[metrics]', and unset IMAGEIO_FFMPEG_EXE if it names another ffmpeg"


def find_ffmpeg(filter_name: str) -> str:
    """Return the path of the program.

    Raises:
        MissingExtra: there is none, or it lacks the filter.
    """
    try:
        program: str = imageio_ffmpeg.get_ffmpeg_exe()
        listed = subprocess.run(
            [program, "-hide_banner", "-filters"], capture_output=True, text=True, check=True
        ).stdout
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise MissingExtra(f"imageio-ffmpeg has no ffmpeg that runs: {error}", remedy=_REMEDY) from error
    if not any(line.split()[1:2] == [filter_name] for line in listed.splitlines()):
        raise MissingExtra(f"{program} was built without the filter {filter_name}", remedy=_REMEDY)
    return program


def filter_log(program: str, compare: str, frames: Tensor, reference: Tensor) -> str:
    """Return the log of a filter that compares two clips, each (3, frames, rows, columns) in 0..1.

    Args:
        program: path of ffmpeg.
        compare: the filter, with the inputs [frames] and [reference]; it writes the file `LOG`.
        frames: of the sample.
        reference: of the full run, of the same shape.

    Raises:
        MissingExtra: the filter failed; the message has its last line.
    """
    rows, columns = frames.shape[-2:]
    # One frame above the other, so that a single pipe will do.
    graph = (
        f"[0:v]split[upper][lower];[upper]crop={columns}:{rows}:0:0,{_YUV}[frames];"
        f"[lower]crop={columns}:{rows}:0:{rows},{_YUV}[reference];{compare}"
    )
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{columns}x{2 * rows}", "-framerate", "24"]
    command = [program, "-hide_banner", "-loglevel", "error", *source, "-i", "pipe:0", "-lavfi", graph]
    with tempfile.TemporaryDirectory(prefix="budc-ffmpeg-") as name:
        folder = Path(name)
        with (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [*command, "-f", "null", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=folder,
            )
            # A program that ends early closes the pipe; its exit status says so.
            with process, suppress(BrokenPipeError):
                assert process.stdin is not None
                for pair in zip(frames.unbind(1), reference.unbind(1), strict=True):
                    for frame in pair:
                        process.stdin.write(_rgb24(frame))
        if process.returncode != 0 or not (folder / LOG).is_file():
            said = (folder / "errors").read_text(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"exit status {process.returncode}"
            raise MissingExtra(f"{program} failed on frames of {rows} × {columns}: {reason}", remedy=_REMEDY)
        return (folder / LOG).read_text()


def _rgb24(frame: Tensor) -> bytes:
    pixels: bytes = (frame.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy().tobytes()
    return pixels
