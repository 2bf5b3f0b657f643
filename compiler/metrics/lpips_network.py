"""The network of LPIPS: features of a classifier at five depths, compared with learned weights; differentiable.

Layers are numbered as in torchvision, whose weights it takes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from budc.compiler.metrics.lpips_files import LPIPS_FILES
from budc.compiler.metrics.weights import read_tensors, take, with_weights

_VGG16 = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512)
_TAPS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
"""The layers whose outputs are compared: the last activation before each pooling, or all of AlexNet's."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What the authors take out of colours in -1..1."""
_EPSILON = 1e-10


class Lpips(nn.Module):
    """The distance of images (N, 3, rows, columns) in 0..1: (N,), differentiable; equation 1 of the paper."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self.features = _alexnet() if network == "alex" else _vgg16()
        self.taps = _TAPS[network]
        layers = list(self.features)
        widths = [layer.out_channels for tap in self.taps if isinstance(layer := layers[tap - 1], nn.Conv2d)]
        self.linear = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in widths)

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """Return the distance of each image from its reference."""
        pairs = zip(self._depths(images), self._depths(reference), self.linear, strict=True)
        return torch.stack(
            [((a - b).square() * weight).sum(1).mean(dim=(1, 2)) for a, b, weight in pairs]
        ).sum(0)

    def _depths(self, images: Tensor) -> list[Tensor]:
        """Return the features at each depth, of length 1 at each pixel."""
        shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (_SHIFT, _SCALE))
        hidden = (2 * images - 1 - shift) / scale
        found = []
        for index, layer in enumerate(self.features):
            hidden = layer(hidden)
            if index in self.taps:
                found.append(hidden / (hidden.norm(dim=1, keepdim=True) + _EPSILON))
        return found


def load_lpips(network: str, folder: Path) -> Lpips:
    """Return the network "alex" or "vgg", frozen, with the weights of a folder.

    Raises:
        ModelError: `features.safetensors` or `linear.safetensors` is missing, not safe or another network's.
    """
    features, linear = (folder / name for name in LPIPS_FILES)
    backbone, heads = read_tensors(features), read_tensors(linear)

    def weight(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.startswith("features."):
            return take(backbone, name, shape, features)
        return take(heads, f"lin{name.removeprefix('linear.')}.model.1.weight", shape, linear)

    return with_weights(lambda: Lpips(network), weight)


def _alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG16:
        if isinstance(width, int):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)
