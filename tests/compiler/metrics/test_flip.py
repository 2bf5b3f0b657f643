"""FLIP of constant images, which has a closed form: no detector of edges or points finds anything in them."""

import pytest
import torch

from budc.compiler.metrics import METRICS

CPU = torch.device("cpu")


def flip(frame, reference):
    grey = [torch.full((3, 1, 8, 8), level) for level in (frame, reference)]
    return METRICS["flip"].load(None, CPU).measure(*grey, "")


def lightness(level):
    """L* of a grey of sRGB `level`."""
    linear = level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4
    return 116 * linear ** (1 / 3) - 16 if linear > (6 / 29) ** 3 else linear * (29 / 3) ** 3


def mapped(difference):
    """FLIP's colour difference of two greys: |ΔL*| ^ 0.7, of which two fifths of the largest become 0.95."""
    # HyAB distance of sRGB green (L* 87.74, a* -86.18, b* 83.18) and blue (32.30, 79.20, -107.86), a* and b* by Hunt times L*/100.
    green, blue = (0.8774 * -86.18, 0.8774 * 83.18), (0.3230 * 79.20, 0.3230 * -107.86)
    largest = (87.74 - 32.30 + ((green[0] - blue[0]) ** 2 + (green[1] - blue[1]) ** 2) ** 0.5) ** 0.7
    error = difference**0.7
    if error < 0.4 * largest:
        return 0.95 * error / (0.4 * largest)
    return 0.95 + 0.05 * (error - 0.4 * largest) / (0.6 * largest)


@pytest.mark.parametrize(("frame", "reference"), [(0.6, 0.5), (0.0, 1.0), (0.02, 0.3)])
def test_flip_of_two_greys(frame, reference):
    expected = mapped(abs(lightness(frame) - lightness(reference)))
    assert flip(frame, reference) == pytest.approx(expected, abs=2e-4)
    assert flip(reference, frame) == pytest.approx(expected, abs=2e-4)


def test_flip_of_equal_images_is_zero():
    assert flip(0.3, 0.3) == 0.0
