"""Lesson: a prompt set with the latents that it should end in, and how a policy in training does on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditions
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.microbatches import Turns
from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.training.unrolled import Parameters, unroll


@dataclass(frozen=True)
class Lesson:
    """A prompt set and the latents that it should end in, (N, ...)."""

    conditions: Conditions
    latents: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def part(self, first: int, last: int) -> Lesson:
        """Return the samples first..last-1."""
        return Lesson(self.conditions.part(first, last), self.latents[first:last])

    def rows(self, rows: list[int]) -> Lesson:
        """Return some samples."""
        return Lesson(self.conditions.rows(rows), self.latents[rows])


def gradient(
    denoiser: Denoiser, parameters: Parameters, lesson: Lesson, rows: list[int], turns: Turns
) -> list[Tensor]:
    """Return the gradient, a tensor a group, of the mean log error over some samples.

    Raises:
        DeviceMemory: that of one sample does not fit.
    """
    leaves = list(parameters.groups.values())

    def found(first: int, last: int) -> Sequence[Tensor]:
        part = lesson.rows(rows[first:last])
        latents = unroll(denoiser, parameters, part.conditions)
        errors = (latents - part.latents.to(latents.device)).square().flatten(1).mean(1)
        loss = errors.clamp_min(1e-30).log().sum() / len(rows)
        # Returned, not added up in the leaves: there a backward that failed half-way would leave its half.
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    parts = turns.run(len(rows), found)
    return [torch.stack(group).sum(0) for group in zip(*parts, strict=True)]


@torch.no_grad()
def log_error(denoiser: Denoiser, parameters: Parameters, lesson: Lesson, turns: Turns) -> float:
    """Return the mean log error of a lesson, at most 1e9.

    Raises:
        DeviceMemory: one sample does not fit.
    """

    def found(first: int, last: int) -> list[float]:
        part = lesson.part(first, last)
        return latent_errors(unroll(denoiser, parameters, part.conditions).cpu(), part.latents)

    errors = list(chain.from_iterable(turns.run(len(lesson), found)))
    loss = sum(math.log(max(error, 1e-30)) if error == error else math.inf for error in errors) / len(errors)
    return min(loss, 1e9)
