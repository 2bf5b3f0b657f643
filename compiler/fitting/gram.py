"""Least squares on Gram matrices: which combination of earlier cached tensors is nearest to a step's own.

For steps h = (h_0, h_1, h_2), newest first, and a step k, the coefficients c minimise ‖r_k - Σ_i c_i r_{h_i}‖². They
are A⁻¹ g with A = G[h, h] + λ · mean(diag G[h, h]) · I and g = G[h, k]. The regularisation λ is needed because cached
tensors of neighbouring steps are nearly parallel: without it, coefficients would fit the noise in their differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RIDGE = 1e-3
"""λ, relative to the mean square of what is combined."""

_LEAST = 1e-30


def mean_gram(gram: Tensor) -> Tensor:
    """Return the mean over prompts, (N, branches, S, S) -> (branches, S, S); each scaled to a mean square of 1."""
    energy = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(gram.dtype).tiny)
    return (gram / energy[..., None, None]).mean(0)


def fit(
    gram: Tensor, step: int, history: Sequence[int], ridge: float = RIDGE
) -> tuple[tuple[float, ...], float]:
    """Return the coefficients of `step` from the steps of `history`, newest first, and their error; gram (S, S).

    The error is the squared distance that these coefficients leave, without the regularisation.
    """
    steps = list(history)
    matrix = gram[steps][:, steps]
    target = gram[steps, step]
    # Residuals can be exactly zero (blocks that start as identities): their coefficients are then zero.
    scale = matrix.diagonal().mean().clamp_min(_LEAST)
    regular = matrix + ridge * scale * torch.eye(len(steps), dtype=gram.dtype)
    coefficients = torch.linalg.solve(regular, target)
    error = gram[step, step] - 2 * coefficients @ target + coefficients @ matrix @ coefficients
    return tuple(coefficients.tolist()), max(float(error), 0.0)


def segment_errors(gram: Tensor, terms: int, ridge: float = RIDGE, first_steps: Sequence[int] = ()) -> Tensor:
    """Return the reuse-error tensor E[previous, last, k] (S, S, S), summed over branches; gram (branches, S, S).

    This is the error of step k when `last` and, where `terms` > 1, `previous` are the newest computed steps. Where
    `previous == last`, or where one of `first_steps` lies between the two (another network takes over there), `last`
    alone is combined. Entries are infinite except for previous <= last < k.
    """
    steps = gram.shape[-1]
    errors = torch.full((steps, steps, steps), torch.inf, dtype=gram.dtype)
    for last in range(steps):
        for previous in range(last + 1):
            crosses = any(previous < first <= last for first in first_steps)
            history = [last] if previous == last or terms == 1 or crosses else [last, previous]
            matrix = gram[:, history][:, :, history]
            scale = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(_LEAST)[:, None, None]
            regular = matrix + ridge * scale * torch.eye(len(history), dtype=gram.dtype)
            target = gram[:, history, last + 1 :]
            coefficients = torch.linalg.solve(regular, target)
            squared = (
                gram.diagonal(dim1=-2, dim2=-1)[:, last + 1 :]
                - 2 * (coefficients * target).sum(1)
                + (coefficients * (matrix @ coefficients)).sum(1)
            )
            errors[previous, last, last + 1 :] = squared.clamp_min(0).sum(0)
    return errors
