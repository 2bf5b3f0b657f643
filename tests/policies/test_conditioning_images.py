"""Images of samples: a picture in RGB, or an error that says what is wrong with the file."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from pictures import write_picture
from PIL import Image

from budc.policies import conditioning_images
from budc.policies.conditioning_images import open_image, sample_image
from budc.schema.errors import UsageError


def animated(path: Path, **options: object) -> Path:
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 120, 240)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


def test_it_is_the_picture_in_rgb(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", 3)
    pixels = np.asarray(open_image(sample_image(path, "here")))
    assert np.array_equal(pixels, np.asarray(Image.open(path)))
    assert pixels.shape == (14, 20, 3)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "tiff", "webp"])
def test_common_formats_are_read(tmp_path: Path, suffix: str) -> None:
    assert open_image(sample_image(write_picture(tmp_path / f"a.{suffix}"), "here")).mode == "RGB"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_transparency_and_palettes_are_dropped(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode).save(path)
    picture = open_image(sample_image(path, "here"))
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_it_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: a quarter turn
    Image.new("RGB", (6, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert open_image(sample_image(tmp_path / "a.jpg", "here")).size == (2, 6)


def text(path: Path) -> None:
    path.write_text("no picture")


def cut(path: Path) -> None:
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    path.write_bytes(whole.getvalue()[:-900])


def large(path: Path) -> None:
    Image.new("1", (8192, 8200)).save(path, "PNG")


def huge(path: Path) -> None:
    """Write the header of a bitmap alone."""
    Image.new("1", (1, 1)).save(path, "BMP")
    data = bytearray(path.read_bytes())
    data[18:26] = struct.pack("<ii", 30_000, 30_000)
    path.write_bytes(data)


def deep(path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(path, "PNG")


BAD = {
    "missing": (lambda path: None, "cannot read the image: .*No such file"),
    "folder": (Path.mkdir, "not a regular file"),
    "pipe": (os.mkfifo, "not a regular file"),
    "empty": (Path.touch, "is no picture that can be read"),
    "text": (text, "is no picture that can be read"),
    "cut short": (cut, "is no picture that can be read"),
    "large": (large, "has more than 67,108,864 pixels"),
    "huge": (huge, "has more than 67,108,864 pixels"),
    "gif": (lambda path: animated(path, format="GIF"), "has 3 pictures, one is taken"),
    "webp": (lambda path: animated(path, format="WEBP"), "has 3 pictures, one is taken"),
    "pages": (lambda path: animated(path, format="TIFF"), "has 3 pictures, one is taken"),
    "16 bits": (deep, "has more than 8 bits a channel"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_naming_place_and_file(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path / "x.png")
    with pytest.raises(UsageError, match=rf"mine\.csv, line 3: .*{message}") as refused:
        sample_image(tmp_path / "x.png", "mine.csv, line 3")
    assert str(tmp_path / "x.png") in str(refused.value)
    assert refused.value.remedy


def test_a_file_is_read_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditioning_images, "MAX_BYTES", 50)
    with pytest.raises(UsageError, match="over 50 bytes"):
        sample_image(write_picture(tmp_path / "a.png"), "here")


def test_a_file_that_changes_between_both_readings_is_refused(tmp_path: Path) -> None:
    image = sample_image(write_picture(tmp_path / "a.png"), "here")
    write_picture(tmp_path / "a.png", seed=1)
    with pytest.raises(UsageError, match="has changed since"):
        open_image(image)
