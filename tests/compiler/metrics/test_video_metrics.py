"""VMAF and XPSNR by ffmpeg: colours, values known by hand, and programs that cannot do it."""

import math
import stat

import pytest
import torch

from budc.compiler.metrics import METRICS, load_metrics
from budc.compiler.metrics.ffmpeg import LOG, filter_log, find_ffmpeg
from budc.compiler.metrics.xpsnr import combined
from budc.schema.errors import MissingExtra
from budc.schema.psnr import PSNR_CAP

CPU = torch.device("cpu")


def measure(name, frames, reference):
    return METRICS[name].load(None, CPU).measure(frames, reference, "")


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.2, 0.8, 33)[:, None].expand(3, 3, 33, 35)
    return (ramp + 0.1 * torch.rand(3, 3, 33, 35, generator=generator)).clamp(0, 1)


def test_vmaf_is_high_for_equal_clips_and_falls_with_noise(clip):
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))
    scores = [measure("vmaf", (clip + level * noise).clamp(0, 1), clip) for level in (0.0, 0.05, 0.2)]
    assert 100 >= scores[0] > 97 > scores[1] > scores[2] >= 0


def test_vmaf_asks_for_the_frames_that_its_library_needs(clip):
    least = METRICS["vmaf"].least_side
    small = clip[..., :least, :least]
    assert measure("vmaf", small, small) > 90
    _, (missing,) = load_metrics([METRICS["vmaf"]], None, CPU, size=(least - 1, 64))
    assert "smaller than the 17 × 17" in missing.reason


def test_xpsnr_of_a_tiny_clip_is_a_psnr_of_luma_and_chroma():
    """Under about 32 × 32 pixels all errors count the same. Greys 128 and 153 are 126 and 147 in limited range."""
    reference, frames = (torch.full((3, 2, 16, 16), level) for level in (0.5, 0.6))
    luma = 20 * math.log10(255 / 21)
    assert measure("xpsnr", frames, reference) == pytest.approx(luma + 10 * math.log10(6 / 4), abs=1e-3)
    assert measure("xpsnr", frames[:, :1], reference[:, :1]) == pytest.approx(23.447, abs=1e-3)
    assert measure("xpsnr", reference, reference) == PSNR_CAP


def test_xpsnr_weighs_planes_by_their_samples():
    assert combined(30.0, 30.0, 30.0) == pytest.approx(30.0)
    assert combined(30.0, math.inf, math.inf) == pytest.approx(30 + 10 * math.log10(1.5))
    assert combined(math.inf, math.inf, math.inf) == math.inf


def test_frames_are_converted_by_bt_709():
    """A change that leaves 0.2126 R + 0.7152 G + 0.0722 B as it is is one of chroma alone."""
    reference = torch.full((3, 2, 64, 64), 0.5)
    frames = reference + torch.tensor([0.2, -0.2 * 0.2126 / 0.7152, 0.0]).view(3, 1, 1, 1)
    log = filter_log(find_ffmpeg("psnr"), f"[frames][reference]psnr=stats_file={LOG}", frames, reference)
    first = dict(part.split(":") for part in log.splitlines()[0].split())
    assert float(first["mse_y"]) <= 1
    assert float(first["mse_v"]) > 100


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program that imageio-ffmpeg is told to use; returns a function that writes it."""

    def write(script):
        path = tmp_path / "ffmpeg"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo ' .. psnr VV->V an xpsnr'", "was built without the filter xpsnr"),
        ("exit 3", "has no ffmpeg that runs"),
    ],
)
def test_an_ffmpeg_without_the_filter_is_not_used(program, script, reason):
    path = program(script)
    loaded, (missing,) = load_metrics([METRICS["xpsnr"]], None, CPU)
    assert loaded == {}
    assert reason in missing.reason
    assert path in missing.reason
    assert "IMAGEIO_FFMPEG_EXE" in missing.remedy


def test_an_ffmpeg_that_fails_is_an_error_with_what_it_said(program):
    """More is written than a pipe holds, and the program reads none of it."""
    path = program("echo first >&2; echo 'no such codec' >&2; exit 1")
    frames = torch.zeros(3, 2, 256, 256)
    with pytest.raises(MissingExtra, match="failed on frames of 256 × 256: no such codec"):
        filter_log(path, "[frames][reference]xpsnr", frames, frames)
