"""The denoisers of a loaded model, called and guided as its pipeline does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.denoisers.denoiser import Denoiser, WeightedGuidance
from budc.compiler.denoisers.experts import ExpertSwitch
from budc.compiler.models.model import LoadedModel
from budc.runtimes.sampling.trunk import Trunk
from budc.schema.policy import Payload


class ModelDenoiser(WeightedGuidance):
    """One denoiser of a loaded model, by its `index`; `payload` says what computed steps leave for reused ones, and
    `first_blocks` how many blocks run at reused ones too, see `Trunk`.
    """

    def __init__(
        self,
        model: LoadedModel,
        payload: Payload = "trunk-residual",
        index: int = 0,
        first_blocks: int = 0,
    ) -> None:
        self._model = model
        self._index = index
        self._payload: Payload = payload
        self._first_blocks = first_blocks
        self._guidance = model.guidances[index]
        branches, guidance = model.profile.branches, self._guidance
        self.weights: Mapping[str, float] = {
            name: float(
                model.adapter.guide({b: torch.tensor(float(b == name)).double() for b in branches}, guidance)
            )
            for name in branches
        }
        self.linear = model.adapter.linear
        self.device = model.device

    @cached_property
    def _trunk(self) -> Trunk:
        transformer = self._model.denoisers[self._index]
        return Trunk(transformer, self._payload, first_blocks=self._first_blocks)

    def _onloaded(self) -> Trunk:
        """Return the trunk, its network on the device."""
        self._model.denoisers.onloaded(self._index)
        return self._trunk

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network."""
        adapter = self._model.adapter
        output, residual = self._onloaded().compute(**adapter.inputs(condition, latents, timestep))
        return adapter.velocity(output), residual

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run embedding, final norm and projection."""
        adapter = self._model.adapter
        return adapter.velocity(
            self._onloaded().reuse(residual, **adapter.inputs(condition, latents, timestep))
        )

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Combine the branches as the pipeline does."""
        if self.linear:
            return super().guide(velocities, timestep)
        return self._model.adapter.guide(velocities, self._guidance)

    def checkpoint_blocks(self) -> bool:
        """Switch on the transformer's own checkpointing, which does nothing where no gradients are taken."""
        transformer: Any = self._trunk.transformer
        if transformer.is_gradient_checkpointing or not transformer._supports_gradient_checkpointing:
            return False
        transformer.enable_gradient_checkpointing()
        return True


def model_denoiser(
    model: LoadedModel, payload: Payload = "trunk-residual", first_blocks: int = 0
) -> Denoiser:
    """Return a loaded model's denoiser, or its experts as one."""
    denoisers = model_denoisers(model, payload, first_blocks)
    return denoisers[0] if len(denoisers) == 1 else ExpertSwitch(denoisers, model.boundaries)


def model_denoisers(model: LoadedModel, payload: Payload, first_blocks: int = 0) -> tuple[ModelDenoiser, ...]:
    """Return the denoisers of a loaded model, in the order in which they run."""
    return tuple(ModelDenoiser(model, payload, index, first_blocks) for index in range(len(model.denoisers)))
