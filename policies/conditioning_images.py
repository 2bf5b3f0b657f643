"""Images that samples are made from beside their prompts: which pipelines take one, and how its file is read.

A file is read twice: for its digest and to see that it is a picture, before anything is loaded, and when it is encoded.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budc.policies.samples import SampleImage
from budc.schema.errors import BudcError, MissingExtra, UnsupportedModel, UsageError
from budc.schema.files import read_limited
from budc.schema.installation import install
from budc.schema.policy import ImageRole

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_ROLES: Mapping[str, ImageRole] = {"WanImageToVideoPipeline": "first-frame"}
"""Pipeline class → the role of the image that each of its samples has. Those of other classes have none."""

MAX_BYTES = 1 << 26
MAX_PIXELS = 1 << 26
"""8192 × 8192: pipelines scale an image to the size of their output, which is far smaller."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def image_roles(pipeline_class: str) -> tuple[ImageRole, ...]:
    """Return the roles of the images that condition each sample of a pipeline class."""
    return (IMAGE_ROLES[pipeline_class],) if pipeline_class in IMAGE_ROLES else ()


def check_first_frame_alone(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a network that sees a last frame too, by its configuration, which is in the file `path`.

    Raises:
        UnsupportedModel: it has a place for the tokens of two images.
    """
    tokens = config.get("pos_embed_seq_len")
    if tokens is not None:
        raise UnsupportedModel(
            f"{path}: pos_embed_seq_len is {tokens!r}, so the network sees a first and a last frame; policies are made "
            "for a first frame alone",
            remedy="give the folder of an image-to-video model such as wan2.1-i2v-14b-480p",
        )


def sample_image(path: Path, where: str) -> SampleImage:
    """Return an image with its digest, once it is known to be a picture; messages begin with `where`.

    Raises:
        UsageError: it cannot be read, is no picture, an animation, too large, or of more than 8 bits a channel.
        MissingExtra: Pillow is not installed.
    """
    data = _read(path, where)
    _decoded(data, path, where)
    return SampleImage(str(path), _digest(data))


def open_image(image: SampleImage) -> Image:
    """Return the picture of a sample in RGB, turned upright as its EXIF data says, and without transparency.

    Raises:
        UsageError: the file cannot be read any more, or is another one by now.
    """
    path = Path(image.path)
    data = _read(path, "image")
    if _digest(data) != image.digest:
        raise UsageError(
            f"{path}: the image has changed since the prompts were read", remedy="run the command again"
        )
    return _decoded(data, path, "image")


def _read(path: Path, where: str) -> bytes:
    try:
        return read_limited(path, MAX_BYTES)
    except BudcError as error:
        raise UsageError(
            f"{where}: cannot read the image: {error}",
            remedy="paths in a prompt file are relative to that file",
        ) from error


def _decoded(data: bytes, path: Path, where: str) -> Image:
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as missing:
        raise MissingExtra(
            "reading an image needs Pillow, which is not installed (extra budc[torch])",
            remedy=install("torch"),
        ) from missing
    with warnings.catch_warnings():
        # Of large images, which are refused below, and of EXIF data that cannot be read.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_kind(image, path, where)
            return ImageOps.exif_transpose(image).convert("RGB")
        except UsageError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large(path, where) from error
        except Exception as error:  # The readers of Pillow raise nothing narrower.
            raise UsageError(
                f"{where}: {path} is no picture that can be read: {error}",
                remedy=f"give a whole file in one of {', '.join(FORMATS)}",
            ) from error


def _check_kind(image: Image, path: Path, where: str) -> None:
    """Refuse what Pillow would cut down to something else without a word."""
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path, where)
    if getattr(image, "is_animated", False):
        raise UsageError(
            f"{where}: {path} has {getattr(image, 'n_frames', 2)} pictures, one is taken",
            remedy="save the one that is meant to a file of its own",
        )
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UsageError(
            f"{where}: {path} has more than 8 bits a channel, which a pipeline does not take",
            remedy="save it with 8 bits a channel",
        )


def _too_large(path: Path, where: str) -> UsageError:
    return UsageError(
        f"{where}: {path} has more than {MAX_PIXELS:,} pixels", remedy="scale it down, a pipeline does so too"
    )


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
