"""The files of kept frames: written before their evaluation, and read only if they are what it says."""

import contextlib
import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from budc.schema.errors import ArtifactError, OutputError
from budc.schema.files import read_limited, write_atomic
from budc.schema.kept_frames import MOST_BYTES, RANKS, KeptFrames, frames_folder

_NAME = re.compile(rf"(?:{'|'.join(RANKS)})-(?:full|policy)-[0-9a-f]{{16}}\.webp")


def write_frames(evaluation: Path, files: Mapping[str, bytes]) -> None:
    """Write the frames of an evaluation, name -> content, into its folder, which is made.

    Raises:
        OutputError: it cannot be made or written.
    """
    folder = frames_folder(evaluation)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}", remedy="give another --out") from error
    for name, content in files.items():
        write_atomic(folder / name, content)


def remove_former_frames(evaluation: Path, kept: Collection[str]) -> None:
    """Remove the frames that an earlier evaluation of this name had, and this one has not."""
    for path in frames_folder(evaluation).iterdir():
        if _NAME.fullmatch(path.name) and path.name not in kept:
            with contextlib.suppress(OSError):
                path.unlink()


def read_frames(evaluation: Path, kept: KeptFrames) -> Mapping[str, bytes] | None:
    """Return digest -> content of the frames of an evaluation; None where its folder is not there.

    Raises:
        ArtifactError: a file is missing, or is not the WebP that the evaluation says.
    """
    folder = frames_folder(evaluation)
    if not folder.is_dir():
        return None
    contents = {}
    for name, digest in kept.files.items():
        data = read_limited(folder / name, MOST_BYTES)
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest or not is_webp(data):
            raise ArtifactError(
                f"{folder / name} is not the picture that {evaluation.name} says",
                remedy=f"evaluate once more with --keep-frames, or remove {folder}",
            )
        contents[digest] = data
    return contents


def is_webp(data: bytes) -> bool:
    """Whether a file begins as a WebP does."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
