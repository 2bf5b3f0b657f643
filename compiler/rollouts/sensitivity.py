"""Sensitivity: how the final latents of a policy change with its coefficients, by finite differences.

Along each direction (`budc.compiler.rollouts.directions`) the policy is rolled out again with a small move. Up to the
first step that moves, nothing changes, so a rollout starts there. No gradient is needed: it costs forwards alone, and
the memory of a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.fitting.gauss_newton import NormalEquations
from budc.compiler.fitting.trajectory import differences
from budc.compiler.rollouts.directions import Direction, directions, moved
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.step import CurrentStep, Trajectory, take_step
from budc.runtimes.sampling.trunk import combine
from budc.schema.policy import Policy
from budc.schema.predictor import MAX_TERMS

MOVE = 0.1
"""What a reused payload moves by, relative to the newest that is cached. Smaller moves would be lost in the rounding of
half-precision networks, and latents are still linear in this one (docs/adr/0021-refinement.md)."""


class ForkedTrajectory(Trajectory):
    """A rollout under a policy, from which others with other coefficients fork; branches cache the newest first."""

    def __init__(self, form: LinearForm, noise: Tensor, policy: Policy, branches: Sequence[str]) -> None:
        super().__init__(form, noise, policy.payload)
        self.cached: dict[str, tuple[tuple[int, Tensor], ...]] = {}
        self._branches = branches
        self._policies = {branch: policy.for_branch(branch) for branch in branches}

    def fork(self, step: int, policy: Policy) -> ForkedTrajectory:
        """Return a rollout that has the steps before `step` in common with this one, and goes on under a policy."""
        fork = ForkedTrajectory(self.form, self.noise, policy, self._branches)
        fork.velocities = self.velocities[:step]
        fork.cached = {branch: self._before(branch, step) for branch in self._branches}
        return fork

    def basis(self, direction: Direction, branch: str) -> Tensor:
        """Return what a branch combines at a direction's steps, in differences: the tensor of its term."""
        cached = [tensor for _, tensor in self._before(branch, direction.first)]
        return differences(cached[:MAX_TERMS])[direction.term]

    def computing(self) -> Collection[str]:
        """Return the branches whose masks say so."""
        return [branch for branch in self._branches if self._policies[branch].mask[self.step]]

    def cache(self, branch: str, cached: Tensor) -> None:
        """Keep it with its step."""
        self.cached[branch] = ((self.step, cached), *self.cached.get(branch, ()))

    def reused(self, current: CurrentStep) -> Mapping[str, Tensor]:
        """Return what the policy's coefficients make of what is cached."""
        combined = {}
        for branch in self._branches:
            if branch not in current.computed:
                row = self._policies[branch].predictor[self.step]
                combined[branch] = combine(row, [cached for _, cached in self.cached[branch][: len(row)]])
        return combined

    def _before(self, branch: str, step: int) -> tuple[tuple[int, Tensor], ...]:
        return tuple(entry for entry in self.cached[branch] if entry[0] < step)


def normal_equations(
    network: BatchedDenoiser, form: LinearForm, policy: Policy, reference: Tensor
) -> list[NormalEquations]:
    """Return the normal equations of each prompt, for `reference`, the final latents (N, ...) of the reference run.

    Raises:
        DeviceMemory: one sample does not fit into the memory of the device.
    """
    base = ForkedTrajectory(form, network.conditions.noise, policy, network.branches)
    _to_end(network, [base])
    columns: list[Tensor] = []
    for first, run in groupby(directions(policy, network.branches), key=lambda direction: direction.first):
        terms = list(run)
        sizes = [_size(base, direction) for direction in terms]
        forks = [
            base.fork(first, moved(policy, network.branches, [(direction, size)]))
            for direction, size in zip(terms, sizes, strict=True)
        ]
        _to_end(network, forks)
        columns += [
            (fork.latents - base.latents).flatten(1) / size for fork, size in zip(forks, sizes, strict=True)
        ]
    errors = (reference - base.latents).flatten(1)
    return [
        NormalEquations.of(torch.stack([column[prompt] for column in columns]), error)
        for prompt, error in enumerate(errors)
    ]


def forwards_of_normal_equations(policy: Policy, branches: Sequence[str]) -> int:
    """Return the forwards of one prompt that its normal equations take, all branches together."""
    masks = [policy.for_branch(branch).mask for branch in branches]
    forks = sum(sum(mask[direction.first :]) for direction in directions(policy, branches) for mask in masks)
    return sum(map(sum, masks)) + forks


def _to_end(network: BatchedDenoiser, trajectories: Sequence[ForkedTrajectory]) -> None:
    while trajectories and trajectories[0].step < trajectories[0].form.steps:
        take_step(network, trajectories)


def _size(base: ForkedTrajectory, direction: Direction) -> float:
    """Return the move along a direction that changes a reused payload by `MOVE`; `MOVE` where the term is nothing."""
    newest = direction._replace(term=0)
    squares = [
        sum(float(base.basis(at, branch).double().square().mean()) for branch in direction.branches)
        for at in (newest, direction)
    ]
    return MOVE * math.sqrt(squares[0] / squares[1]) if squares[1] > 1e-12 * squares[0] > 0 else MOVE
