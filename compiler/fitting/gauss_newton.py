"""Gauss-Newton: the move of all coefficients at once that brings the final latents nearest to the reference run's.

Along some directions d the final latents of prompt p are nearly linear in a move m, so that their error is
e_p - J_p · m, where column i of J_p says what a move along d_i changes. The move minimises

    Σ_p ‖e_p - J_p · m‖² / ‖e_p‖² + λ · mᵀ · D · m        D: the diagonal of Σ_p J_pᵀJ_p / ‖e_p‖²

This is one step of Levenberg and Marquardt (Marquardt: An algorithm for least-squares estimation of nonlinear
parameters, 1963). Prompts are weighted by the inverse of their squared error, as a loss is the mean of their
logarithms. λ is the one with which prompts lose least by the move that all others lead to (cross-validation, leaving
one out). All of this needs nothing as large as latents, but only the normal equations of each prompt, which have a row
for each direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""The values of λ that are tried."""

_LEAST = 1e-30
_LEAST_LEFT = 1e-3
"""Of an error: the linear model is not believed beyond it."""


class NormalEquations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """JᵀJ, Jᵀe and ‖e‖² of one prompt: how final latents move along each direction, and how far they are off."""

    curvature: tuple[tuple[float, ...], ...]
    slope: tuple[float, ...]
    error: float

    @classmethod
    def of(cls, columns: Tensor, error: Tensor) -> NormalEquations:
        """Return them of J as columns (directions, size) and of e (size,); zeros where something is not finite."""
        columns, error = columns.double(), error.double()
        if not (columns.isfinite().all() and error.isfinite().all()):
            columns, error = torch.zeros_like(columns), torch.zeros_like(error)
        return cls(
            tuple(map(tuple, (columns @ columns.T).tolist())),
            tuple((columns @ error).tolist()),
            float(error @ error),
        )

    def fits(self, directions: int) -> bool:
        """Return whether these are of so many directions."""
        return {len(self.slope), len(self.curvature), *map(len, self.curvature)} == {directions}


class _Stacked(NamedTuple):
    """The normal equations of several prompts: curvature (N, d, d), slope (N, d) and error (N,)."""

    curvature: Tensor
    slope: Tensor
    error: Tensor

    def move(self, weights: Tensor, damping: float) -> Tensor:
        """Return the move (d,) that prompts of these weights lead to; 0 along directions that change nothing."""
        matrix, right = torch.einsum("n,nij->ij", weights, self.curvature), weights @ self.slope
        # In units in which every direction changes as much.
        unit = matrix.diagonal().clamp_min(_LEAST).rsqrt()
        scaled = unit[:, None] * matrix * unit + damping * torch.eye(len(unit), dtype=torch.float64)
        move: Tensor = unit * torch.linalg.solve(scaled, unit * right)
        return move

    def left(self, prompt: int, move: Tensor) -> float:
        """Return which share of a prompt's squared error a move leaves."""
        left = self.error[prompt] - 2 * self.slope[prompt] @ move + move @ self.curvature[prompt] @ move
        return max(float(left / self.error[prompt]), _LEAST_LEFT)


def best_move(equations: Sequence[NormalEquations]) -> tuple[float, ...]:
    """Return the move along each direction; 0 along those that change nothing, and from prompts without an error."""
    stacked = _Stacked(
        *(
            torch.tensor([getattr(own, field) for own in equations], dtype=torch.float64)
            for field in _Stacked._fields
        )
    )
    weights = torch.where(stacked.error > 0, 1 / stacked.error, 0.0)
    damping = min(DAMPINGS, key=lambda damping: _left_out_loss(stacked, weights, damping))
    move: list[float] = stacked.move(weights, damping).tolist()
    return tuple(move)


def _left_out_loss(stacked: _Stacked, weights: Tensor, damping: float) -> float:
    """Return the sum of the logs of what is left of each prompt's error by the move that the others lead to."""
    losses = []
    for prompt in weights.nonzero()[:, 0].tolist():
        others = weights.clone()
        others[prompt] = 0
        losses.append(math.log(stacked.left(prompt, stacked.move(others, damping))))
    return math.fsum(losses)
