"""Tracking: coefficients that keep a policy on the full run's path, fitted along its own trajectory.

A policy's inputs differ from the full run's, so coefficients fitted on the full run alone extrapolate from the
wrong place. Here they are fitted as the rollout goes: at a reused step the next state is all but linear in the
coefficients of all branches that reuse,

    x_{k+1}(c) = rest + h · g(v(c)),        v_b(c) ≈ v_b(c⁰) + J_b (c - c⁰)

with the guidance g, a weighted sum of the branches or at least smooth in them. So the c that bring it closest to the
full run's x*_{k+1}, over all prompts at once, are one small least-squares solve. Errors of earlier steps are part of
rest, hence corrected as far as the residuals at hand can. It costs no forward beyond those of the rollout, and the
coefficients are then constants of the policy.

Prompts are weighted by the inverse of their error (one step of iteratively reweighted least squares), because a
few prompts that flip to another mode would otherwise own the fit. The solve is in differences of residuals, r_0,
r_0 - r_1, r_0 - 2 r_1 + r_2, and regularised towards the coefficients that the Gram matrix of the full run gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from budc.schema.predictor import MAX_COEFFICIENT

RIDGE = 3e-4
"""Regularisation towards the prior, relative to the mean squared column."""

SECANT = 0.05
"""Step of the secant that linearises the head around a trunk residual."""

CoefficientRows = Mapping[str, tuple[float, ...]]


def to_differences(row: Sequence[float]) -> Tensor:
    """Return the coefficients of a row, newest first, in the basis of differences; float64."""
    c = [*row, 0.0, 0.0][:3]
    values = [c[0] + c[1] + c[2], -(c[1] + 2 * c[2]), c[2]]
    return torch.tensor(values[: len(row)], dtype=torch.float64)


def from_differences(values: Tensor) -> Tensor:
    """Return the row, newest first, of coefficients (..., terms) in the basis of differences."""
    a = torch.nn.functional.pad(values, (0, 3 - values.shape[-1]))
    row = torch.stack([a[..., 0] + a[..., 1] + a[..., 2], -a[..., 1] - 2 * a[..., 2], a[..., 2]], dim=-1)
    return row[..., : values.shape[-1]]


def differences(residuals: Sequence[Tensor]) -> list[Tensor]:
    """Return r_0, r_0 - r_1, r_0 - 2 r_1 + r_2 of up to three residuals, newest first."""
    found = [residuals[0]]
    if len(residuals) > 1:
        found.append(residuals[0] - residuals[1])
    if len(residuals) > 2:
        found.append(residuals[0] - 2 * residuals[1] + residuals[2])
    return found


def solve_trajectory(
    target: Tensor,
    columns: Tensor,
    prior: Tensor,
    ridge: float = RIDGE,
) -> Tensor:
    """Return the move d (columns,) from the linearisation point that minimises, over d,

        Σ_p weight_p ‖target_p - columns_p · d‖² + ridge · scale · ‖d - prior‖²

    target (N, size), columns (terms, N, size), prior (terms,): the move that leads back to the prior. weight_p is
    1 / ‖target_p‖, scale the mean squared weighted column.
    """
    weight = target.double().square().mean(1).clamp_min(1e-24).rsqrt()
    root = (weight / weight.mean()).sqrt()
    left = (columns.double() * root[None, :, None]).flatten(1)
    right = (target.double() * root[:, None]).flatten()
    normal = left @ left.T
    scale = normal.diagonal().mean().clamp_min(1e-30)
    penalty = ridge * scale * torch.eye(len(left), dtype=torch.float64)
    move: Tensor = torch.linalg.solve(normal + penalty, left @ right + penalty @ prior)
    return move


def fit_trajectory(
    residuals: Mapping[str, Sequence[Tensor]],
    prior: CoefficientRows,
    velocity: Callable[[str, Tensor], Tensor],
    guide: Callable[[Mapping[str, Tensor]], Tensor],
    target: Callable[[Tensor], Tensor],
    *,
    linear: bool,
) -> dict[str, tuple[float, ...]]:
    """Return one row per reusing branch, newest first.

    `residuals` holds what each of them may combine, newest first; `velocity(branch, residual)` is the network's
    head, `guide` returns the guided velocity (N, ...) from these branches' own, both exactly linear where `linear`;
    `target(v)` is what it should change by, given that it is v now.
    """
    rows = {branch: to_differences(prior[branch]) for branch in residuals}
    start = {branch: values.clone() for branch, values in rows.items()}
    for _ in range(1 if linear else 2):
        bases = {branch: differences(residuals[branch])[: len(values)] for branch, values in rows.items()}
        now = {branch: _combined(bases[branch], values) for branch, values in rows.items()}
        reused = {branch: velocity(branch, residual) for branch, residual in now.items()}
        columns: list[Tensor] = []
        for branch, basis in bases.items():
            for part in basis:
                if linear:
                    slope = velocity(branch, part)
                else:
                    slope = (velocity(branch, now[branch] + SECANT * part) - reused[branch]) / SECANT
                columns.append(_along(guide, reused, branch, slope))
        stacked = torch.stack(columns).flatten(2)
        back = torch.cat([start[branch] - rows[branch] for branch in rows])
        move = solve_trajectory(target(guide(reused)).flatten(1), stacked, back)
        for branch, part in zip(rows, move.split([len(values) for values in rows.values()]), strict=True):
            rows[branch] = rows[branch] + part
    return {branch: tuple(from_differences(values).tolist()) for branch, values in rows.items()}


def _along(
    guide: Callable[[Mapping[str, Tensor]], Tensor],
    velocities: Mapping[str, Tensor],
    branch: str,
    slope: Tensor,
) -> Tensor:
    # How the guided velocity moves as one branch's moves along the slope; a weighted sum's is exactly weight · slope.
    def one(velocity: Tensor) -> Tensor:
        return guide({**velocities, branch: velocity})

    moved: Tensor = torch.autograd.functional.jvp(one, velocities[branch], slope)[1]
    return moved


def _combined(basis: Sequence[Tensor], values: Tensor) -> Tensor:
    total = basis[0] * float(values[0])
    for part, value in zip(basis[1:], values[1:], strict=True):
        total = total + part * float(value)
    return total


def bounded(value: float) -> float:
    """Return the coefficient within what a policy may hold."""
    return max(-MAX_COEFFICIENT, min(MAX_COEFFICIENT, value))
