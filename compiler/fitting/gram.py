"""Least squares on Gram matrices: how well a payload is a combination of earlier ones, and with which coefficients.

For steps h = (h_0, h_1, h_2), newest first, and a step k, the error E[k, h] = min_c ‖r_k - Σ_i c_i r_{h_i}‖² is
G_kk - gᵀ A⁻¹ g with A = G[h, h] + λ·mean(diag G[h, h])·I and g = G[h, k]. λ is the documented regularisation: the
residuals of neighbouring steps are nearly parallel, and without it the coefficients would fit their differences'
noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RIDGE = 1e-3
"""λ, relative to the mean squared residual of the steps combined."""

_LEAST = 1e-30


def mean_gram(gram: Tensor) -> Tensor:
    """Return the mean over prompts (N, branches, S, S) -> (branches, S, S), each prompt scaled to mean energy 1."""
    energy = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(gram.dtype).tiny)
    return (gram / energy[..., None, None]).mean(0)


def fit(
    gram: Tensor, step: int, history: Sequence[int], ridge: float = RIDGE
) -> tuple[tuple[float, ...], float]:
    """Return (coefficients, error) of `step` from `history`, newest first; gram (S, S).

    The error is the unregularised squared distance that these coefficients leave.
    """
    chosen = list(history)
    matrix = gram[chosen][:, chosen]
    target = gram[chosen, step]
    # Residuals can be zero to the last bit (blocks that start as identities): their coefficients are then zero.
    scale = matrix.diagonal().mean().clamp_min(_LEAST)
    regular = matrix + ridge * scale * torch.eye(len(chosen), dtype=gram.dtype)
    coefficients = torch.linalg.solve(regular, target)
    left = gram[step, step] - 2 * coefficients @ target + coefficients @ matrix @ coefficients
    return tuple(coefficients.tolist()), max(float(left), 0.0)


def segment_errors(gram: Tensor, terms: int, ridge: float = RIDGE, first_steps: Sequence[int] = ()) -> Tensor:
    """Return the reuse-error tensor E[previous, last, k] (S, S, S), summed over branches; gram (branches, S, S).

    The error of step k when `last` and, where `terms` > 1, `previous` are the newest computed steps. There is none
    before `last` where `previous == last`, or where one of `first_steps` lies between: another network takes over
    there. Only previous <= last < k is meaningful; the rest is infinite.
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
            found = torch.linalg.solve(regular, target)
            left = (
                gram.diagonal(dim1=-2, dim2=-1)[:, last + 1 :]
                - 2 * (found * target).sum(1)
                + (found * (matrix @ found)).sum(1)
            )
            errors[previous, last, last + 1 :] = left.clamp_min(0).sum(0)
    return errors
