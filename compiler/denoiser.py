"""Denoiser: a network in its two modes, as rollouts call it; nothing of pipelines, checkpoints or files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from budc.compiler.conditions import Condition
from budc.compiler.model import Model
from budc.runtimes.families import Family, Span
from budc.runtimes.trunk import Trunk
from budc.schema.errors import UnsupportedModel
from budc.schema.policy import Payload


class Denoiser(Protocol):
    """What a policy is searched for.

    `compute` returns the velocity (n, ...) of latents (n, ...), and the trunk residual of any shape (n, ...);
    `reuse` the velocity from a residual in the blocks' place. `timestep` is a scalar tensor; `condition` is one
    branch's: a tensor or several by name, of first dimension n.
    """

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""

    @property
    def linear(self) -> bool:
        """Whether `guide` is linear in the velocities."""

    @property
    def device(self) -> torch.device:
        """Where the network lies."""

    def first_steps(self, timesteps: Sequence[float] | Tensor) -> tuple[int, ...]:
        """Return the steps of a schedule at which another network takes over; none where there is one network."""

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network."""

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run what comes before and after the trunk."""

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return the guided velocity (n, ...) of every branch's, differentiably."""

    def checkpoint_blocks(self) -> bool:
        """Keep only what lies between blocks where gradients are wanted; return whether that makes room anew."""


class WeightedSum:
    """One network with the usual guidance: `weights`, branch -> its weight in the guided velocity."""

    weights: Mapping[str, float]
    linear: bool = True

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""
        return tuple(self.weights)

    def first_steps(self, timesteps: Sequence[float] | Tensor) -> tuple[int, ...]:
        """Return none."""
        return ()

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return Σ_b weights[b] · velocities[b]."""
        return guide(self.weights, velocities)

    def checkpoint_blocks(self) -> bool:
        """Make no room."""
        return False


class ModelDenoiser(WeightedSum):
    """A loaded model's denoiser, the first or at another `place`; `payload` is what it carries from computed to reused
    steps, see `Trunk`.
    """

    def __init__(self, model: Model, payload: Payload = "trunk-residual", place: int = 0) -> None:
        self._model = model
        self._trunk = Trunk(model.denoisers[place], payload)
        self._guidance = model.guidances[place]
        branches, guidance = model.profile.branches, self._guidance
        self.weights: Mapping[str, float] = {
            name: float(
                model.adapter.guide({b: torch.tensor(float(b == name)).double() for b in branches}, guidance)
            )
            for name in branches
        }
        self.linear = model.adapter.linear
        self.device = model.device

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network."""
        adapter = self._model.adapter
        output, residual = self._trunk.compute(**adapter.inputs(condition, latents, timestep))
        return adapter.velocity(output), residual

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run embedding, final norm and projection."""
        adapter = self._model.adapter
        return adapter.velocity(self._trunk.reuse(residual, **adapter.inputs(condition, latents, timestep)))

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Combine the branches as the pipeline does."""
        if self.linear:
            return super().guide(velocities, timestep)
        return self._model.adapter.guide(velocities, self._guidance)

    def checkpoint_blocks(self) -> bool:
        """Switch on the transformer's own checkpointing, which is idle where no gradients are wanted."""
        transformer: Any = self._trunk.transformer
        if transformer.is_gradient_checkpointing or not transformer._supports_gradient_checkpointing:
            return False
        transformer.enable_gradient_checkpointing()
        return True


class ModuleDenoiser(WeightedSum):
    """Any module that is called as `module(latents, timestep, condition)` and returns the velocity.

    latents (n, ...), timestep (n,), condition (n, ...) or several by name. `blocks` names its trunk: the
    `ModuleList` that its forward iterates over, each block taking the hidden state first and returning the next one.

    Raises:
        UnsupportedModel: there is no such list of blocks.
    """

    def __init__(self, module: nn.Module, weights: Mapping[str, float], blocks: str = "blocks") -> None:
        self._module = module.eval().requires_grad_(False)
        self._trunk = Trunk(module, family=Family(type(module).__name__, (Span(blocks, "hidden"),)))
        self.weights = weights
        self.device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network."""
        with self._trunk.installed():
            self._trunk.arm_compute()
            try:
                velocity: Tensor = self._module(latents, timestep.expand(len(latents)), condition)
            finally:
                residual = self._trunk.disarm()
        if residual is None:
            raise UnsupportedModel(
                f"{type(self._module).__name__} did not iterate over its blocks",
                remedy="name the ModuleList that its forward loops over",
            )
        return velocity, residual

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run what comes before and after the blocks."""
        with self._trunk.installed():
            self._trunk.arm_reuse(residual)
            try:
                velocity: Tensor = self._module(latents, timestep.expand(len(latents)), condition)
            finally:
                self._trunk.disarm()
        return velocity


class CallableDenoiser(WeightedSum):
    """A pair of functions: `compute(latents, timestep, condition)` returns velocity and residual, `reuse(residual,
    latents, timestep, condition)` the velocity; timestep (n,).
    """

    def __init__(
        self,
        compute: Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]],
        reuse: Callable[[Tensor, Tensor, Tensor, Any], Tensor],
        weights: Mapping[str, float],
        device: torch.device,
    ) -> None:
        self._compute, self._reuse = compute, reuse
        self.weights = weights
        self.device = device

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network."""
        return self._compute(latents, timestep.expand(len(latents)), condition)

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run what comes before and after the trunk."""
        return self._reuse(residual, latents, timestep.expand(len(latents)), condition)


def guide(weights: Mapping[str, float], velocities: Mapping[str, Tensor]) -> Tensor:
    """Return the guided velocity: the weighted sum of the branches' velocities (n, ...)."""
    names = iter(velocities)
    first = next(names)
    total = weights[first] * velocities[first]
    for name in names:
        total = total + weights[name] * velocities[name]
    return total
