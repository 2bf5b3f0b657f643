"""PSNR and SSIM, compared with values computed by hand."""

import pytest
import torch

from budc.compiler.metrics import METRICS
from budc.compiler.metrics.summary import summary
from budc.schema.psnr import PSNR_CAP

CPU = torch.device("cpu")


def measure(name, frames, reference):
    return METRICS[name].load(None, CPU).measure(frames, reference, "")


def grey(level, frames=1, side=16):
    return torch.full((3, frames, side, side), level)


def test_psnr_of_a_known_offset_and_of_equal_frames():
    assert measure("psnr", grey(0.5), grey(0.4)) == pytest.approx(20.0, abs=1e-5)
    assert measure("psnr", grey(0.5), grey(0.5)) == PSNR_CAP


def test_psnr_of_a_clip_is_of_its_whole_error():
    """One of two frames is off by 0.1: the clip's squared error is 0.005."""
    clip = torch.cat([grey(0.4), grey(0.5)], dim=1)
    assert measure("psnr", clip, grey(0.5, frames=2)) == pytest.approx(23.0103, abs=1e-3)


def test_ssim_of_constant_images_is_that_of_their_means():
    """Without variance SSIM is (2ab + C1) / (a² + b² + C1), with C1 = 0.01²."""
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert measure("ssim", grey(0.2), grey(0.6)) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_a_clip_is_the_mean_over_its_frames():
    clip = torch.cat([grey(0.2), grey(0.6)], dim=1)
    single = measure("ssim", grey(0.2), grey(0.6))
    assert measure("ssim", clip, grey(0.6, frames=2)) == pytest.approx((single + 1) / 2)


def test_ssim_weights_covariances_by_the_window():
    """The one pixel whose window of 11 × 11 is inside, computed from the formula."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 3, 1, 11, 11, generator=generator, dtype=torch.float64)
    line = torch.exp(-(torch.arange(-5.0, 6.0, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def mean(values):
        return (values * window).sum(dim=(-1, -2))

    variance_a, variance_b = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    expected = ((2 * mean(a) * mean(b) + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean(a) ** 2 + mean(b) ** 2 + 1e-4) * (variance_a + variance_b + 9e-4)
    )
    assert measure("ssim", a, b) == pytest.approx(float(expected.mean()), abs=1e-9)


def test_the_worst_sample_is_on_the_metric_s_bad_side():
    metric = summary(METRICS["psnr"], [30.0, 20.0, 40.0])
    assert (metric.name, metric.unit, metric.mean, metric.worst, metric.samples) == (
        "psnr",
        "dB",
        30.0,
        20.0,
        3,
    )
    assert metric.standard_error == pytest.approx(10 / 3**0.5)
    assert summary(METRICS["psnr"], [30.0]).standard_error == 0.0
