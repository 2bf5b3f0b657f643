"""Metrics of decoded frames: what is measured, and what the journal spares."""

from types import SimpleNamespace

import pytest
import torch

from budc.compiler.comparison.frame_values import frame_values
from budc.compiler.metrics import FrameMetric
from budc.compiler.storage.journal import Journal

MODEL = SimpleNamespace(
    denoisers=SimpleNamespace(offload=lambda: None),
    adapter=SimpleNamespace(decoder=lambda folder, profile, device: lambda latents: latents),
    folder=None,
    profile=None,
    device=None,
)


@pytest.fixture
def measure(tmp_path):
    """Measure zeros and ones against zeros, for two prompts; return the values and which prompts were measured."""

    def call(**metrics):
        measured = []

        def metric(name, weights):
            def difference(frames, reference, prompt):
                measured.append(f"{name} {prompt}")
                return float((frames - reference).mean())

            return FrameMetric(difference, weights)

        latents = {"same": torch.zeros(2, 3), "other": torch.ones(2, 3)}
        loaded = {name: metric(name, weights) for name, weights in metrics.items()}
        with Journal(tmp_path, "one") as journal:
            values = frame_values(
                MODEL, latents, torch.zeros(2, 3), ["a", "b"], loaded, journal, "calibrated"
            )
        return values, measured

    return call


def test_each_method_is_measured_once_for_each_prompt_and_a_further_metric_alone(measure):
    expected = [{"same": {"psnr": 0.0}, "other": {"psnr": 1.0}}] * 2
    assert measure(psnr=None) == (expected, ["psnr a", "psnr a", "psnr b", "psnr b"])
    assert measure(psnr=None) == (expected, [])
    values, measured = measure(psnr=None, ssim=None)
    assert values[0]["other"] == {"psnr": 1.0, "ssim": 1.0}
    assert measured == ["ssim a", "ssim a", "ssim b", "ssim b"]


def test_other_weights_are_another_metric(measure):
    """Figures of two networks under one name are not mixed, and those of the first stay for when it comes back."""
    assert len(measure(clip="sha256:1")[1]) == 4
    values, measured = measure(clip="sha256:2")
    assert len(measured) == 4
    assert values[0]["other"] == {"clip": 1.0}
    assert measure(clip="sha256:1")[1] == []
