"""Any module with a list of blocks, as a denoiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.denoisers.denoiser import WeightedGuidance
from budc.compiler.denoisers.identity import module_identity
from budc.runtimes.sampling.families import Family, Span
from budc.runtimes.sampling.trunk import Trunk
from budc.schema.errors import UnsupportedModel


class ModuleDenoiser(WeightedGuidance):
    """Any module that is called as `module(latents, timestep, condition)` and returns the velocity.

    Latents are (n, ...), the timestep (n,), the condition (n, ...) or several by name. `blocks` names the trunk: the
    `ModuleList` that the forward iterates over; each block takes the hidden state as its first argument and returns
    the next one. `weights` is branch -> guidance weight.

    Raises:
        UnsupportedModel: there is no such list of blocks; when computing, the forward does not iterate over it.
    """

    def __init__(self, module: nn.Module, weights: Mapping[str, float], blocks: str = "blocks") -> None:
        self.module = module.eval().requires_grad_(False)
        self._trunk = Trunk(module, family=Family(type(module).__name__, (Span(blocks, "hidden"),)))
        self.blocks = blocks
        self.weights = weights
        self.device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole module."""
        with self._trunk.installed():
            self._trunk.set_compute()
            try:
                velocity: Tensor = self.module(latents, timestep.expand(len(latents)), condition)
            finally:
                residual = self._trunk.clear()
        if residual is None:
            raise UnsupportedModel(
                f"{type(self.module).__name__} did not iterate over its blocks",
                remedy="name the ModuleList that its forward loops over",
            )
        return velocity, residual

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run what comes before and after the blocks."""
        with self._trunk.installed():
            self._trunk.set_reuse(residual)
            try:
                velocity: Tensor = self.module(latents, timestep.expand(len(latents)), condition)
            finally:
                self._trunk.clear()
        return velocity

    def identity(self) -> object:
        """Return what tells this module, its trunk and its guidance from others. Raises UnsupportedModel."""
        return {**module_identity(self.module), "blocks": self.blocks, "guidance": dict(self.weights)}
