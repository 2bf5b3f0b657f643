"""SSIMULACRA2 against the same formulas written as loops over pixels."""

import math

import pytest
import torch

from budc.compiler.metrics import METRICS
from budc.compiler.metrics.ssimulacra2 import _window
from budc.compiler.metrics.ssimulacra2_weights import WEIGHTS

CPU = torch.device("cpu")


def score(image, reference):
    return METRICS["ssimulacra2"].load(None, CPU).measure(image[:, None], reference[:, None], "")


@pytest.fixture(scope="module")
def picture():
    return torch.rand(3, 9, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def changed(picture):
    noise = torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (picture + 0.02 * noise).clamp(0, 1)


def colours(image):
    """The pixels of an image in XYB, each shifted to be positive, as lists of rows by channel."""
    planes = [[], [], []]
    for pixels in image.permute(1, 2, 0).tolist():
        rows = [[], [], []]
        for pixel in pixels:
            r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in pixel)
            bias = 0.0037930732552754493
            cones = (
                0.3 * r + 0.622 * g + 0.078 * b,
                0.23 * r + 0.692 * g + 0.078 * b,
                0.24342268924547819 * r
                + 0.20476744424496821 * g
                + (1 - 0.24342268924547819 - 0.20476744424496821) * b,
            )
            roots = [math.cbrt(cone + bias) - math.cbrt(bias) for cone in cones]
            x, y = (roots[0] - roots[1]) / 2, (roots[0] + roots[1]) / 2
            for row, value in zip(rows, (14 * x + 0.42, y + 0.01, roots[2] - y + 0.55), strict=True):
                row.append(value)
        for plane, row in zip(planes, rows, strict=True):
            plane.append(row)
    return planes


def blurred(plane, y, x):
    window = _window()
    total = 0.0
    for dy in range(-5, 6):
        for dx in range(-5, 6):
            if 0 <= y + dy < len(plane) and 0 <= x + dx < len(plane[0]):
                total += window[dy + 5] * window[dx + 5] * plane[y + dy][x + dx]
    return total


def products(plane, other):
    return [[a * b for a, b in zip(*rows, strict=True)] for rows in zip(plane, other, strict=True)]


def errors(reference, image):
    """Structure, added edges and lost edges of each pixel of one channel."""
    for y in range(len(reference)):
        for x in range(len(reference[0])):
            m1, m2 = blurred(reference, y, x), blurred(image, y, x)
            s11, s22 = blurred(products(reference, reference), y, x), blurred(products(image, image), y, x)
            s12 = blurred(products(reference, image), y, x)
            similar = (1 - (m1 - m2) ** 2) * (2 * (s12 - m1 * m2) + 9e-4) / (s11 - m1**2 + s22 - m2**2 + 9e-4)
            edge = (1 + abs(image[y][x] - m2)) / (1 + abs(reference[y][x] - m1)) - 1
            yield max(0.0, 1 - similar), max(0.0, edge), max(0.0, -edge)


def test_one_scale_is_as_computed_by_loops(picture, changed):
    """Rows and columns are below 16, so there is one scale, and it has the first weights of the list."""
    norms = []
    for reference, image in zip(colours(picture), colours(changed), strict=True):
        maps = list(zip(*errors(reference, image), strict=True))
        norms += [sum(values) / len(values) for values in maps]
        norms += [(sum(value**4 for value in values) / len(values)) ** 0.25 for values in maps]
    error = 0.9562382616834844 * sum(w * norm for w, norm in zip(WEIGHTS, norms, strict=False))
    error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
    assert score(changed, picture) == pytest.approx(100 - 10 * error**0.6276336467831387, abs=1e-3)


def test_equal_images_have_100(picture):
    assert score(picture, picture) == 100.0


def test_more_noise_scores_less_over_all_scales():
    generator = torch.Generator().manual_seed(0)
    clean = torch.linspace(0.2, 0.8, 257).expand(3, 256, 257).contiguous()
    noise = torch.randn(clean.shape, generator=generator)
    scores = [score((clean + level * noise).clamp(0, 1), clean) for level in (0.001, 0.01, 0.1)]
    assert 100 > scores[0] > 90 > scores[1] > scores[2]


def test_the_window_is_normal_with_the_variance_of_the_gaussian():
    window = _window()
    assert sum(window) == pytest.approx(1.0, abs=1e-12)
    assert sum(w * (tap - 5) ** 2 for tap, w in enumerate(window)) == pytest.approx(1.5**2, abs=1e-12)
    assert window == pytest.approx(window[::-1], abs=1e-15)


def test_there_is_a_weight_for_each_channel_scale_norm_and_map():
    assert len(WEIGHTS) == 3 * 6 * 2 * 3
