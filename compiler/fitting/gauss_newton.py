"""Gauss-Newton: the move of all coefficients at once that brings the final latents nearest to the reference run's.

Along some directions d the final latents of prompt p are nearly linear in a move m, so that their error is
e_p - J_p · m, where column i of J_p says what a move along d_i changes. The move minimises

    Σ_p ‖e_p - J_p · m‖² / ‖e_p‖² + λ · mᵀ · D · m        D: the diagonal of Σ_p J_pᵀJ_p / ‖e_p‖²

This is one step of Levenberg and Marquardt (Marquardt: An algorithm for least-squares estimation of nonlinear
parameters, 1963). Prompts are weighted by the inverse of their squared error, as a loss is the mean of their
logarithms. It needs nothing as large as latents: only the normal equations of each prompt, with a row for each
direction, which are added up.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

DAMPING = 0.03
"""λ. Half or double of it changes little on the embedded models (docs/adr/0021-refinement.md)."""

_LEAST = 1e-30


class NormalEquations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """JᵀJ, Jᵀe and ‖e‖² of one prompt: how final latents move along each direction, and how far they are off."""

    curvature: tuple[tuple[float, ...], ...]
    slope: tuple[float, ...]
    error: float

    @classmethod
    def of(cls, columns: Tensor, error: Tensor) -> NormalEquations:
        """Return them of J as columns (directions, size) and of e (size,)."""
        columns, error = columns.double(), error.double()
        return cls(
            tuple(map(tuple, (columns @ columns.T).tolist())),
            tuple((columns @ error).tolist()),
            float(error @ error),
        )

    def fits(self, directions: int) -> bool:
        """Return whether these are of so many directions."""
        return {len(self.slope), len(self.curvature), *map(len, self.curvature)} == {directions}


def best_move(equations: Sequence[NormalEquations], damping: float = DAMPING) -> tuple[float, ...]:
    """Return the move along each direction; 0 along those that change nothing."""
    weights = torch.tensor([1 / max(own.error, _LEAST) for own in equations], dtype=torch.float64)
    weights = weights / weights.sum()
    curvature = torch.tensor([own.curvature for own in equations], dtype=torch.float64)
    slope = torch.tensor([own.slope for own in equations], dtype=torch.float64)
    matrix, right = torch.einsum("n,nij->ij", weights, curvature), weights @ slope
    # In units in which every direction changes as much.
    unit = matrix.diagonal().clamp_min(_LEAST).rsqrt()
    scaled = unit[:, None] * matrix * unit + damping * torch.eye(len(unit), dtype=torch.float64)
    move: list[float] = (unit * torch.linalg.solve(scaled, unit * right)).tolist()
    return tuple(move)
