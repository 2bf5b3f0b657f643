"""LPIPS on random weights in the layout of the published files, against its formula on functional layers."""

import re
import sys
from pathlib import Path

import pytest
import torch
from lpips_weights import ALEX, ALEX_WIDTHS, random_layers, save_lpips
from safetensors.torch import load_file
from torch.nn.functional import conv2d, max_pool2d, normalize, relu

from budc.compiler.metrics import METRICS, load_metrics
from budc.schema.errors import UnsafeWeights, UnsupportedModel, WeightsMissing

CPU = torch.device("cpu")
VGG = [(0, 64), (2, 64), (5, 128), (7, 128), (10, 256), (12, 256), (14, 256)]
VGG += [(17, 512), (19, 512), (21, 512), (24, 512), (26, 512), (28, 512)]


@pytest.fixture(scope="module")
def alex(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    features = random_layers(ALEX, 0)
    return folder, features, save_lpips(folder / "lpips", features, ALEX_WIDTHS)


def frames(seed, rows=40, columns=48):
    return torch.rand(3, 2, rows, columns, generator=torch.Generator().manual_seed(seed))


def alex_features(image, layers):
    """The five activations of AlexNet, as its paper has the layers."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    hidden = ((2 * image - 1 - shift[:, None, None]) / scale[:, None, None])[None]
    found = []
    for number, stride, padding, pooled in [
        (0, 4, 2, False),
        (3, 1, 2, True),
        (6, 1, 1, True),
        (8, 1, 1, False),
        (10, 1, 1, False),
    ]:
        hidden = max_pool2d(hidden, 3, 2) if pooled else hidden
        weight, bias = layers[f"features.{number}.weight"], layers[f"features.{number}.bias"]
        hidden = relu(conv2d(hidden, weight, bias, stride, padding))
        found.append(normalize(hidden, dim=1, eps=1e-10))
    return found


def test_lpips_is_the_weighted_distance_of_unit_features(alex):
    folder, features, linear = alex
    loaded, missing = load_metrics([METRICS["lpips"]], folder, CPU)
    assert missing == []
    image, reference = frames(1), frames(2)
    expected = []
    for one, other in zip(image.unbind(1), reference.unbind(1), strict=True):
        pairs = zip(
            alex_features(one, features), alex_features(other, features), linear.values(), strict=True
        )
        expected.append(sum(float(((a - b) ** 2 * weight).sum(1).mean()) for a, b, weight in pairs))
    assert loaded["lpips"].measure(image, reference, "") == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert loaded["lpips"].measure(image, image, "") == 0


def test_the_vgg_variant_has_the_layers_of_vgg_16(tmp_path):
    """Equal layers give distance 0; a change of one pixel is seen at the first depth alone when others weigh nothing."""
    channels, shapes = 3, {}
    for number, width in VGG:
        shapes[number] = (width, channels, 3, 3)
        channels = width
    features = {name: value.half() for name, value in random_layers(shapes, 0).items()}
    save_lpips(tmp_path / "lpips-vgg", features, [64, 128, 256, 512, 512])
    loaded, missing = load_metrics([METRICS["lpips-vgg"]], tmp_path, CPU, (16, 32))
    assert missing == []
    image, reference = frames(1, 16, 32)[:, :1], frames(2, 16, 32)[:, :1]
    value = loaded["lpips-vgg"].measure(image, reference, "")
    assert value > 0
    assert loaded["lpips-vgg"].measure(reference, image, "") == pytest.approx(value)
    assert loaded["lpips-vgg"].measure(image, image, "") == 0


def test_frames_that_are_too_small_for_the_features_are_refused_before_anything_is_loaded(alex):
    least = METRICS["lpips"].least_side
    loaded, _ = load_metrics([METRICS["lpips"]], alex[0], CPU)
    assert loaded["lpips"].measure(*(frames(seed, least, least) for seed in (1, 2)), "") > 0
    _, (missing,) = load_metrics([METRICS["lpips"]], alex[0], CPU, (least - 1, 64))
    assert "smaller than" in missing.reason


def test_a_distance_can_be_trained_through(alex):
    from budc.compiler.metrics.lpips_network import load_lpips

    network = load_lpips("alex", alex[0] / "lpips")
    image = frames(1).transpose(0, 1).requires_grad_(True)
    network(image, frames(2).transpose(0, 1)).sum().backward()
    assert image.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in network.parameters())


def test_other_weights_are_refused_by_the_tensor_that_does_not_fit(alex, tmp_path):
    _, features, _ = alex
    for name, changed, reason in (
        (
            "short",
            {name: value for name, value in features.items() if name != "features.8.bias"},
            "features.8.bias",
        ),
        ("wide", {**features, "features.3.weight": torch.zeros(192, 64, 3, 3)}, r"\(192, 64, 3, 3\)"),
    ):
        save_lpips(tmp_path / name, changed, ALEX_WIDTHS)
        with pytest.raises(UnsupportedModel, match=reason):
            METRICS["lpips"].load(tmp_path / name, CPU)


def test_pickles_and_what_is_no_safetensors_file_are_refused(tmp_path):
    with pytest.raises(WeightsMissing, match=r"features\.safetensors is not there"):
        METRICS["lpips"].load(tmp_path, CPU)
    torch.save({}, tmp_path / "features.pth")
    with pytest.raises(UnsafeWeights, match=r"features\.pth may be a pickle, which is not opened"):
        METRICS["lpips"].load(tmp_path, CPU)
    (tmp_path / "features.safetensors").write_bytes(b"PK\x03\x04 this is a zip file")
    with pytest.raises(UnsafeWeights, match="is not a safetensors file"):
        METRICS["lpips"].load(tmp_path, CPU)


def test_the_documented_script_converts_a_pickle(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
    script = re.search(r"^```python convert\.py\n(.*?)^```$", page, re.M | re.S)[1]
    shared = torch.arange(4.0)
    for saved in ({"a": shared, "b": shared}, {"state_dict": {"a": shared, "b": shared}, "epoch": 3}):
        torch.save(saved, tmp_path / "published.pt")
        arguments = [str(tmp_path / "published.pt"), str(tmp_path / "ours.safetensors")]
        monkeypatch.setattr(sys, "argv", ["convert.py", *arguments])
        exec(compile(script, "convert.py", "exec"), {})
        assert {name: value.tolist() for name, value in load_file(tmp_path / "ours.safetensors").items()} == {
            "a": [0, 1, 2, 3],
            "b": [0, 1, 2, 3],
        }
