"""A distance of decoded frames as a loss: the gradient goes through the distance and the VAE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class FrameLoss:
    """The mean distance over a sample's frames; `name` is the metric's, `weights` the digest of its network's files.

    `decode` returns frames (1, 3, frames, rows, columns) in 0..1; `distance` takes frames and references
    (frames, 3, rows, columns) on `device` and returns (frames,). The reference is decoded as the latents are, so both
    have the VAE's own error.
    """

    name: str
    decode: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], Tensor]
    device: torch.device
    weights: str

    def __call__(self, latents: Tensor, reference: Tensor) -> Tensor:
        """Return the loss (n,); activations of one sample at a time are kept."""
        pairs = zip(latents.split(1), reference.split(1), strict=True)
        losses = [checkpoint(self._of_sample, *pair, use_reentrant=False) for pair in pairs]
        return torch.stack(losses).to(latents.device)

    def _of_sample(self, latents: Tensor, reference: Tensor) -> Tensor:
        frames, expected = (self.decode(sample)[0].to(self.device) for sample in (latents, reference))
        return self.distance(frames.transpose(0, 1), expected.transpose(0, 1)).mean()
