"""A denoiser over whole prompt sets, in micro-batches that fit its device, every forward counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition, Conditioning, map_condition
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.microbatches import MicroBatches
from budc.schema.arguments import described
from budc.schema.errors import UnsupportedModel

_BATCH = 32
_BATCH_OF_ACCELERATOR = 16
R = TypeVar("R")


class BatchedDenoiser:
    """Runs branches of a denoiser on latents of whole prompt sets (N, ...), kept on the CPU in float32.

    Latents of several candidates at the same step may be stacked, (c · N, ...). Where `stack` is on (default: on
    an accelerator) and the batch holds several prompt sets, it is filled with whole candidates and padded to a constant
    size; otherwise a batch is one candidate or a part of it. Either way the shape of a forward, and with it the
    last bit of its result, does not depend on what else is being scored.

    `forwards` counts computed forwards of one sample and one branch. `halved` is told the new batch size when
    device memory did not suffice. Every method raises `DeviceMemory` where one sample does not fit, and
    `UnsupportedModel` where the network returns something else than its part of `Denoiser` says.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditions: Conditioning,
        batch: int | None = None,
        halved: Callable[[int], object] | None = None,
        stack: bool | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.conditions = conditions
        self.stack = denoiser.device.type != "cpu" if stack is None else stack
        self.forwards = 0
        default = _BATCH if denoiser.device.type == "cpu" else _BATCH_OF_ACCELERATOR
        self._microbatches = MicroBatches(batch or default)
        self._halved = halved

    def unstacked(self, conditions: Conditioning) -> BatchedDenoiser:
        """Return the denoiser over other conditions, one candidate at a time; the batch size stays common to both."""
        other = BatchedDenoiser(self.denoiser, conditions, self.batch, self._halved, stack=False)
        other._microbatches = self._microbatches
        return other

    @property
    def samples(self) -> int:
        """Number of prompts."""
        return len(self.conditions)

    @property
    def batch(self) -> int:
        """Samples of one forward, at most."""
        return self._microbatches.at_once

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches."""
        return self.denoiser.branches

    def compute(self, branch: str, latents: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Return (velocity, residual) of one branch; the residual keeps its dtype."""
        device = self.denoiser.device

        def run(rows: list[int]) -> tuple[Tensor, Tensor]:
            computed = self.denoiser.compute(
                latents[rows].to(device), timestep.to(device), self._condition(branch, rows)
            )
            velocity, residual = _pair(computed, len(rows))
            return _checked("compute", velocity, latents[rows]), residual.cpu()

        velocities, residuals = zip(*self._run(len(latents), run), strict=True)
        self.forwards += len(latents)
        return _unpadded(velocities, len(latents)), _unpadded(residuals, len(latents))

    def reuse(self, branch: str, residual: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the velocity of one branch with a residual in the blocks' place."""
        device = self.denoiser.device

        def run(rows: list[int]) -> Tensor:
            velocity = self.denoiser.reuse(
                residual[rows].to(device),
                latents[rows].to(device),
                timestep.to(device),
                self._condition(branch, rows),
            )
            return _checked("reuse", velocity, latents[rows])

        return _unpadded(self._run(len(latents), run), len(latents))

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Return the guided velocity of every branch's."""
        return self.denoiser.guide(velocities, timestep)

    def _condition(self, branch: str, rows: list[int]) -> Condition:
        samples = [row % self.samples for row in rows]
        device = self.denoiser.device
        return map_condition(self.conditions.embeddings[branch], lambda tensor: tensor[samples].to(device))

    def _run(self, rows: int, run: Callable[[list[int]], R]) -> list[R]:
        @torch.no_grad()
        def microbatch(first: int, last: int) -> R:
            end = first + self._size(first) if self._stacks else last
            return run([min(row, rows - 1) for row in range(first, end)])

        return self._microbatches.run(rows, microbatch, size=self._size, halved=self._halved)

    @property
    def _stacks(self) -> bool:
        return self.stack and self.batch >= 2 * self.samples

    def _size(self, first: int) -> int:
        if self._stacks:
            return self.batch // self.samples * self.samples
        return min(self.batch, self.samples - first % self.samples)


def _unpadded(parts: Sequence[Tensor], count: int) -> Tensor:
    """Return the first `count` rows of all parts; of padded ones a copy, as a view would keep the padding in memory."""
    rows = torch.cat(list(parts))
    return rows if len(rows) == count else rows[:count].clone()


def _pair(computed: object, samples: int) -> tuple[Tensor, Tensor]:
    """Return what `compute` returned, which must be a velocity and a tensor to cache of as many samples."""
    if isinstance(computed, tuple | list) and len(computed) == 2:
        velocity, cached = computed
        if isinstance(cached, Tensor) and cached.ndim and len(cached) == samples:
            return velocity, cached
        computed = cached
    raise UnsupportedModel(
        f"denoiser: compute returned {_described(computed)} for {samples} samples, expected a velocity and a tensor to "
        "cache, which has one entry a sample",
        remedy="return (velocity, cached)",
    )


def _checked(method: str, velocity: object, latents: Tensor) -> Tensor:
    """Return a velocity in float32 on the CPU; refuse one that is not of its latents' shape."""
    if not isinstance(velocity, Tensor) or velocity.shape != latents.shape:
        raise UnsupportedModel(
            f"denoiser: {method} returned {_described(velocity)} for latents of shape {tuple(latents.shape)}",
            remedy="return a velocity of the shape of the latents",
        )
    return velocity.float().cpu()


def _described(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else described(value)
