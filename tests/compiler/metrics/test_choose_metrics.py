"""What --metrics takes, and what is said of metrics that cannot be measured."""

import subprocess
import sys

import pytest
import torch

from budc.compiler.metrics import METRICS, FrameMetric, MetricKind, choose_metrics, load_metrics
from budc.option_names import python_names
from budc.schema.errors import UnsafeWeights, UsageError

CPU = torch.device("cpu")


def constant(weights, device):
    return FrameMetric(lambda frames, reference, prompt: 1.0)


def test_names_are_taken_in_their_order_once_each():
    assert [kind.name for kind in choose_metrics("ssim, psnr,ssim", 1)] == ["ssim", "psnr"]


@pytest.mark.parametrize("frames", [1, 9])
def test_all_that_apply_by_default(frames):
    media = {kind.medium for kind in choose_metrics(None, frames)}
    assert "any" in media
    assert ("video" if frames == 1 else "image") not in media


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("simm", "did you mean ssim"),
        ("PSNR", "did you mean psnr"),
        ("", "use some of psnr"),
        ("psnr,", "use some of"),
    ],
)
def test_an_unknown_name_is_refused_with_what_there_is(text, remedy):
    with pytest.raises(UsageError, match="--metrics: no metric named") as caught:
        choose_metrics(text, 1)
    assert remedy in caught.value.remedy
    with python_names(), pytest.raises(UsageError, match=r"^metrics: no metric named"):
        choose_metrics(text, 1)


def test_a_metric_of_images_is_refused_for_clips(monkeypatch):
    monkeypatch.setitem(METRICS, "still", MetricKind("still", constant, medium="image"))
    assert [kind.name for kind in choose_metrics("still", 1)] == ["still"]
    assert "still" not in [kind.name for kind in choose_metrics(None, 9)]
    with pytest.raises(
        UsageError, match="still is a metric of images, and these are clips of 9 frames"
    ) as caught:
        choose_metrics("still", 9)
    assert "still" not in caught.value.remedy


def test_choosing_imports_no_numerical_library():
    code = (
        "import sys; from budc.compiler.metrics import choose_metrics; choose_metrics(None, 1);"
        "sys.exit(', '.join({'torch', 'numpy', 'skimage', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weights_are_looked_for_in_the_folder_of_the_metric(tmp_path):
    seen = []
    kind = MetricKind("judge", lambda weights, device: seen.append(weights), weights="model.safetensors")
    for folder in (None, tmp_path):
        loaded, (missing,) = load_metrics([kind], folder, CPU)
        assert (loaded, missing.name) == ({}, "judge")
        assert "model.safetensors in judge/" in missing.remedy
    (tmp_path / "judge").mkdir()
    loaded, missing = load_metrics([kind], tmp_path, CPU)
    assert (list(loaded), missing, seen) == (["judge"], [], [tmp_path / "judge"])


def fails(error):
    def load(weights, device):
        raise error

    return load


def test_what_cannot_be_loaded_is_not_measured_and_the_others_are():
    kinds = [
        MetricKind("absent", fails(ModuleNotFoundError("No module named 'a'")), needs=("a-package",)),
        MetricKind("broken", fails(UnsafeWeights("w.safetensors has a hole"))),
        MetricKind("small", constant, least_side=64),
        MetricKind("fine", constant),
    ]
    loaded, missing = load_metrics(kinds, None, CPU, size=(32, 64))
    assert list(loaded) == ["fine"]
    reasons = {found.name: f"{found.reason}; {found.remedy}" for found in missing}
    assert list(reasons) == ["absent", "broken", "small"]
    assert "a-package" in reasons["absent"]
    assert "pip install 'budc[metrics]'" in reasons["absent"]
    assert "has a hole" in reasons["broken"]
    assert "32 × 64 pixels are smaller than the 64 × 64" in reasons["small"]


def test_small_frames_are_refused_where_the_size_was_not_known():
    loaded, missing = load_metrics([MetricKind("small", constant, least_side=64)], None, CPU)
    assert missing == []
    frames = torch.zeros(3, 1, 32, 64)
    with pytest.raises(UsageError, match="--metrics: small: frames of 32 × 64"):
        loaded["small"].measure(frames, frames, "")


def test_a_metric_knows_which_files_its_network_was_loaded_from(tmp_path):
    kind = MetricKind("judge", constant, weights="model.safetensors")

    def digest_of(content):
        (tmp_path / "judge").mkdir(exist_ok=True)
        (tmp_path / "judge" / "model.safetensors").write_bytes(content)
        return load_metrics([kind], tmp_path, CPU)[0]["judge"].weights

    first = digest_of(b"one")
    assert first.startswith("sha256:")
    assert (digest_of(b"two") != first, digest_of(b"one")) == (True, first)
    assert load_metrics([MetricKind("plain", constant)], tmp_path, CPU)[0]["plain"].weights is None
