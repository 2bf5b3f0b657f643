"""What a policy caches between steps: what the trunk records, or the velocity. Rollouts tell them apart here alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from budc.schema.policy import Payload


class CachedPayload(Protocol):
    """How one payload is cached at a computed step, and becomes a velocity at a reused one."""

    @property
    def linear(self) -> bool:
        """Whether the velocity of a reused step is linear in what is cached."""

    def cached(self, velocity: Tensor, residual: Tensor) -> Tensor:
        """Return what is cached of a computed step."""

    def velocity(self, cached: Tensor, reuse: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a reused step's velocity; `reuse` runs the network with a residual in its trunk's place."""


class CachedResidual:
    """What the trunk records: a reused step runs what comes before and after the trunk."""

    linear = False

    def cached(self, velocity: Tensor, residual: Tensor) -> Tensor:
        """Return the residual."""
        return residual

    def velocity(self, cached: Tensor, reuse: Callable[[Tensor], Tensor]) -> Tensor:
        """Run the network around the residual."""
        return reuse(cached)


class CachedVelocity:
    """The velocity: a reused step runs nothing of the network."""

    linear = True

    def cached(self, velocity: Tensor, residual: Tensor) -> Tensor:
        """Return the velocity."""
        return velocity

    def velocity(self, cached: Tensor, reuse: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what is cached."""
        return cached


CACHED_PAYLOADS: Mapping[Payload, CachedPayload] = {
    "trunk-residual": CachedResidual(),
    "velocity": CachedVelocity(),
    "trunk-output": CachedResidual(),
}
"""By `Policy.payload`. A denoiser that records the trunk's output hands that over where another has the residual, see
`budc.compiler.selection.task.Task`."""
