"""LPIPS of decoded frames as a loss: the gradient goes through the distance and the VAE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from budc.compiler.metrics.lpips_network import Lpips, load_lpips


@dataclass(frozen=True)
class LpipsLoss:
    """The mean LPIPS over a sample's frames; `weights` is the digest of the network's files.

    `decode` returns frames (1, 3, frames, rows, columns) in 0..1. The reference is decoded as the latents are, so both
    have the VAE's own error.
    """

    decode: Callable[[Tensor], Tensor]
    distance: Lpips
    device: torch.device
    weights: str

    def __call__(self, latents: Tensor, reference: Tensor) -> Tensor:
        """Return the loss (n,); activations of one sample at a time are kept."""
        pairs = zip(latents.split(1), reference.split(1), strict=True)
        losses = [checkpoint(self._of_sample, *pair, use_reentrant=False) for pair in pairs]
        return torch.stack(losses).to(latents.device)

    def _of_sample(self, latents: Tensor, reference: Tensor) -> Tensor:
        frames, expected = (self.decode(sample)[0].to(self.device) for sample in (latents, reference))
        distances: Tensor = self.distance(frames.transpose(0, 1), expected.transpose(0, 1))
        return distances.mean()


def lpips_loss(
    decode: Callable[[Tensor], Tensor], folder: Path, device: torch.device, weights: str
) -> LpipsLoss:
    """Return the loss with the network (AlexNet's features) in a folder.

    Raises:
        ModelError: its files are missing, not safe or another network's.
    """
    return LpipsLoss(decode, load_lpips("alex", folder).to(device), device, weights)
