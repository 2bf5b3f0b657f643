"""What a training minimises: a loss of each sample, of the latents that it ends in and those that it should end in."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from budc.compiler.rollouts.metrics import log_errors

SampleLoss = Callable[[Tensor, Tensor], Tensor]
"""(latents (n, ...), those of the reference run) -> (n,), differentiable in the former."""


def squared_error(latents: Tensor, reference: Tensor) -> Tensor:
    """Return the mean square of each sample's error. Samples that come out as another picture weigh the most."""
    return (latents - reference).square().flatten(1).mean(1)


def log_squared_error(latents: Tensor, reference: Tensor) -> Tensor:
    """Return the logarithm of `squared_error`, by which all samples weigh about the same."""
    return log_errors(squared_error(latents, reference))
