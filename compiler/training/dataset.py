"""Training set: prompts with the latents to end in, and the loss and gradient of parameters on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.microbatches import MicroBatches
from budc.compiler.rollouts.metrics import latent_errors, log_mean
from budc.compiler.training.losses import SampleLoss, log_squared_error
from budc.compiler.training.parameters import Parameters
from budc.compiler.training.unrolled import differentiable_rollout


@dataclass(frozen=True)
class TrainingSet:
    """A prompt set and the latents that its rollouts should end in, (N, ...)."""

    conditions: Conditioning
    latents: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def part(self, first: int, last: int) -> TrainingSet:
        """Return the samples first..last-1."""
        return TrainingSet(self.conditions.part(first, last), self.latents[first:last])

    def rows(self, rows: list[int]) -> TrainingSet:
        """Return the samples of these rows, in that order."""
        return TrainingSet(self.conditions.rows(rows), self.latents[rows])


def gradient(
    denoiser: Denoiser,
    parameters: Parameters,
    training_set: TrainingSet,
    rows: list[int],
    microbatches: MicroBatches,
    loss: SampleLoss = log_squared_error,
) -> list[Tensor]:
    """Return the gradient of the mean loss over the samples `rows`, one tensor for every group of parameters.

    Raises:
        DeviceMemory: the gradient of one sample does not fit into the memory of the device.
    """
    leaves = list(parameters.groups.values())

    def micro_gradient(first: int, last: int) -> Sequence[Tensor]:
        part = training_set.rows(rows[first:last])
        latents = differentiable_rollout(denoiser, parameters, part.conditions)
        total = loss(latents, part.latents.to(latents.device)).sum() / len(rows)
        # Returned, not accumulated in the leaves: a backward pass that runs out of memory would leave a part there.
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

    gradients = microbatches.run(len(rows), micro_gradient)
    return [torch.stack(group).sum(0) for group in zip(*gradients, strict=True)]


@torch.no_grad()
def log_error(
    denoiser: Denoiser, parameters: Parameters, training_set: TrainingSet, microbatches: MicroBatches
) -> float:
    """Return the mean log error of a training set, at most 1e9.

    Raises:
        DeviceMemory: one sample does not fit into the memory of the device.
    """

    def errors(first: int, last: int) -> list[float]:
        part = training_set.part(first, last)
        latents = differentiable_rollout(denoiser, parameters, part.conditions)
        return latent_errors(latents.cpu(), part.latents)

    return min(log_mean(list(chain.from_iterable(microbatches.run(len(training_set), errors)))), 1e9)
