"""Random weights in the layout of the files that LPIPS is published in."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

ALEX = {
    0: (64, 3, 11, 11),
    3: (192, 64, 5, 5),
    6: (384, 192, 3, 3),
    8: (256, 384, 3, 3),
    10: (256, 256, 3, 3),
}
"""The convolutions of torchvision's AlexNet, by their numbers."""
ALEX_WIDTHS = [64, 192, 384, 256, 256]


def random_layers(shapes: Mapping[int, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """Return weights and biases of convolutions by their numbers, as torchvision names them."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for number, shape in shapes.items():
        fan_in = shape[1] * shape[2] * shape[3]
        layers[f"features.{number}.weight"] = (
            torch.randn(tuple(shape), generator=generator) * (2 / fan_in) ** 0.5
        )
        layers[f"features.{number}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return layers


def save_lpips(folder: Path, features: Mapping[str, Tensor], widths: Sequence[int]) -> dict[str, Tensor]:
    """Write both files into a new folder, with heads of these widths; return the heads."""
    linear = {
        f"lin{index}.model.1.weight": torch.rand(
            1, width, 1, 1, generator=torch.Generator().manual_seed(index)
        )
        for index, width in enumerate(widths)
    }
    folder.mkdir(parents=True)
    # The published file has the classifier's other layers, too.
    save_file({**features, "classifier.1.weight": torch.zeros(2)}, folder / "features.safetensors")
    save_file(linear, folder / "linear.safetensors")
    return linear
