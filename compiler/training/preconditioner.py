"""Preconditioner: units in which all moves of a policy's coefficients change its final latents about as much.

Adam moves each parameter by about its learning rate. But one coefficient changes the final latents a thousand times as
much as another, and some only undo what others do, so no rate fits all. A refinement has measured what each direction
changes (`budc.compiler.fitting.gauss_newton`): with the mean A of JᵀJ / ‖e‖² over prompts, of diagonal D,

    D^-½ · A · D^-½ = V · Λ · Vᵀ        units = D^-½ · V · (Λ + λ)^-½

so that a move of one unit along any column changes the final latents by about the error that the policy had, or by less
where directions undo one another. This is the damped inverse root of the Gauss-Newton matrix (Martens: New insights and
perspectives on the natural gradient method, 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from budc.compiler.fitting.gauss_newton import NormalEquations
from budc.compiler.rollouts.directions import Direction

DAMPING = 0.1
"""λ."""

_LEAST = 1e-12
"""Of the largest curvature: directions below it change nothing, and do not move."""


class Preconditioner(NamedTuple):
    """Directions of a policy's coefficients, and moves along them, (directions, moves) float64."""

    directions: Sequence[Direction]
    units: Tensor

    @classmethod
    def of(cls, directions: Sequence[Direction], equations: Sequence[NormalEquations]) -> Preconditioner:
        """Return that of the normal equations of some prompts along the directions."""
        known = [own for own in equations if own.error > 0]
        curvature = torch.zeros(len(directions), len(directions), dtype=torch.float64)
        for own in known:
            curvature += torch.tensor(own.curvature, dtype=torch.float64) / own.error / len(known)
        diagonal = curvature.diagonal()
        moves = diagonal > _LEAST * diagonal.max()
        unit = torch.where(moves, diagonal, 1.0).rsqrt() * moves
        values, vectors = torch.linalg.eigh(unit[:, None] * curvature * unit)
        return cls(directions, unit[:, None] * vectors * (values.clamp_min(0) + DAMPING).rsqrt())
