"""How the graphs of an export call a model's denoiser: with the text encoders' outputs, at one text length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class DenoiserCall(nn.Module, ABC):
    """A model's own call is a subclass.

    `family_class` is the class by which its trunk is found, where `network` returns another one than the model has.
    """

    family_class: str | None = None

    def network(self, transformer: nn.Module) -> nn.Module:
        """Return the network that is exported in place of a denoiser, with its weights; by default the denoiser."""
        return transformer

    @abstractmethod
    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor, mask: Tensor
    ) -> dict[str, Any]:
        """Return what one forward of the network is called with.

        Args:
            latents: (n, ...), as the scheduler has them, in the dtype of the text.
            timestep: (n,), as the scheduler has it, float32.
            text: (n, tokens, width).
            pooled: (n, width); a scalar where the model does not pool.
            mask: (n, tokens), 1 for tokens of the prompt; a scalar where the model does not ask.
        """

    def velocity(self, output: Tensor) -> Tensor:
        """Return the velocity (n, ...) from what the network returned."""
        return output
