"""Coefficients fitted along a policy's own trajectory, so that it stays near the reference run.

Under a policy, the latents of a step differ from those of the reference run, so coefficients fitted on the reference
run alone fit other inputs than they meet. Here they are fitted during the rollout. At a reused step the next latents
are nearly linear in the coefficients c of all branches that reuse,

    x_{k+1}(c) = rest + h · g(v(c)),        v_b(c) ≈ v_b(c⁰) + J_b (c - c⁰)

with the guidance g, which is a weighted sum of the branches or at least smooth in them. The c that bring x_{k+1}
closest to the reference run's x*_{k+1}, over all prompts at once, are one small least-squares solve. The errors of
earlier steps are in `rest`, so the fit also corrects these, as far as the cached tensors allow. It costs no forward
beyond those of the rollout. Afterwards the coefficients are constants of the policy.

Prompts are weighted by the inverse of their error (one step of iteratively reweighted least squares), because a
few prompts that flip to another mode would otherwise dominate the fit. The solve is in differences of cached tensors,
r_0, r_0 - r_1, r_0 - 2 r_1 + r_2, and regularised towards the coefficients that the reference run's Gram matrix gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from budc.schema.predictor import MAX_COEFFICIENT

RIDGE = 3e-4
"""Regularisation towards the prior, relative to the mean squared column."""

SECANT = 0.05
"""Step of the secant by which the velocity is linearised in a trunk residual."""

CoefficientRows = Mapping[str, tuple[float, ...]]
"""Branch -> its coefficients at one step, newest first."""


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


def differences(cached: Sequence[Tensor]) -> list[Tensor]:
    """Return r_0, r_0 - r_1, r_0 - 2 r_1 + r_2 of up to three cached tensors, newest first."""
    basis = [cached[0]]
    if len(cached) > 1:
        basis.append(cached[0] - cached[1])
    if len(cached) > 2:
        basis.append(cached[0] - 2 * cached[1] + cached[2])
    return basis


def solve_trajectory(
    target: Tensor,
    columns: Tensor,
    prior: Tensor,
    ridge: float = RIDGE,
) -> Tensor:
    """Return the move d (terms,) from the linearisation point that minimises

        Σ_p weight_p ‖target_p - columns_p · d‖² + ridge · scale · ‖d - prior‖²

    over d, for target (N, size), columns (terms, N, size) and prior (terms,), the move that leads back to the prior
    coefficients. weight_p is 1 / ‖target_p‖, and scale the mean square of the weighted columns.
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
    cached: Mapping[str, Sequence[Tensor]],
    prior: CoefficientRows,
    velocity: Callable[[str, Tensor], Tensor],
    guide: Callable[[Mapping[str, Tensor]], Tensor],
    target: Callable[[Tensor], Tensor],
    *,
    linear: bool,
) -> dict[str, tuple[float, ...]]:
    """Return one row per reusing branch, newest first.

    `cached` holds what each of them may combine, newest first. `velocity(branch, combined)` returns its velocity and
    `guide(velocities)` the guided one (N, ...) from the velocities of these branches; `linear` says that both are
    exactly linear. `target(v)` is the change that the guided velocity should make, where it is v now.
    """
    rows = {branch: to_differences(prior[branch]) for branch in cached}
    start = {branch: row.clone() for branch, row in rows.items()}
    for _ in range(1 if linear else 2):
        bases = {branch: differences(cached[branch])[: len(row)] for branch, row in rows.items()}
        combined = {branch: _combined(bases[branch], row) for branch, row in rows.items()}
        velocities = {branch: velocity(branch, value) for branch, value in combined.items()}
        columns: list[Tensor] = []
        for branch, basis in bases.items():
            for direction in basis:
                if linear:
                    slope = velocity(branch, direction)
                else:
                    moved = velocity(branch, combined[branch] + SECANT * direction)
                    slope = (moved - velocities[branch]) / SECANT
                columns.append(_guided_derivative(guide, velocities, branch, slope))
        stacked = torch.stack(columns).flatten(2)
        back = torch.cat([start[branch] - rows[branch] for branch in rows])
        move = solve_trajectory(target(guide(velocities)).flatten(1), stacked, back)
        moves = move.split([len(row) for row in rows.values()])
        rows = {branch: row + own for (branch, row), own in zip(rows.items(), moves, strict=True)}
    return {branch: tuple(from_differences(row).tolist()) for branch, row in rows.items()}


def _guided_derivative(
    guide: Callable[[Mapping[str, Tensor]], Tensor],
    velocities: Mapping[str, Tensor],
    branch: str,
    slope: Tensor,
) -> Tensor:
    # Of the guided velocity, as one branch's moves along the slope; for a weighted sum exactly weight · slope.
    def guided(velocity: Tensor) -> Tensor:
        return guide({**velocities, branch: velocity})

    derivative: Tensor = torch.autograd.functional.jvp(guided, velocities[branch], slope)[1]
    return derivative


def _combined(basis: Sequence[Tensor], row: Tensor) -> Tensor:
    total = basis[0] * float(row[0])
    for direction, value in zip(basis[1:], row[1:], strict=True):
        total = total + direction * float(value)
    return total


def bounded(value: float) -> float:
    """Return the coefficient within what a policy may hold."""
    return max(-MAX_COEFFICIENT, min(MAX_COEFFICIENT, value))
