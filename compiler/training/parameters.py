"""What is trained: a policy's coefficients and sigmas, as tensors of which a rollout is a differentiable function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor

from budc.compiler.fitting.trajectory import from_differences, to_differences
from budc.compiler.rollouts.linear_form import LinearForm, linear_form, trainable
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.training.preconditioner import Preconditioner
from budc.schema.policy import Payload, Policy

Row = Sequence[float | Tensor]


class Parameters(Protocol):
    """What is trained: `groups` name its tensors, `form` and `row` are functions of them."""

    @property
    def payload(self) -> Payload:
        """What is cached, as in a policy."""

    @property
    def forwards(self) -> int:
        """Forwards of one sample's rollout, all branches together."""

    @property
    def groups(self) -> Mapping[str, Tensor]:
        """Name -> leaf tensor, float64."""

    def form(self) -> LinearForm:
        """Return the solver's linear form."""

    def row(self, branch: str, step: int) -> Row:
        """Return a branch's coefficients at a step, newest first; empty where it computes."""


@dataclass
class PolicyParameters:
    """Moves of a policy's coefficients, and where `train_sigmas` of its sigmas.

    Coefficients move in the basis of differences, each by itself. With a `preconditioner` they move along its
    directions, in its units: those of all branches together, and of several branches each by itself as well. They stay
    as they are unless `train_coefficients`.

    Sigmas are first + (last - first) · cumsum(softmax(log gaps + offsets)), so that they stay monotone with both
    ends pinned whatever the offsets are. The two on either side of each of `first_steps` are pinned as well, so that
    no step changes over to another network. Timesteps follow along the scheduler's own, in straight lines between them:
    many schedulers round theirs, and a training starts from what its policy was fitted on.
    """

    policy: Policy
    scheduler: object
    sigmas: Sequence[float]
    timesteps: Sequence[float]
    train_sigmas: bool
    first_steps: Sequence[int] = ()
    train_coefficients: bool = True
    preconditioner: Preconditioner | None = None

    def __post_init__(self) -> None:
        self.payload: Payload = self.policy.payload
        self.forwards = forwards_per_sample(self.policy)
        self.groups: dict[str, Tensor] = {}
        self._coefficients, self._slices = _concatenated(self.policy)
        self._units = self._units_of_moves()
        self._moves = torch.zeros(self._units.shape[1], dtype=torch.float64)
        self._branches = [name for entry in self.policy.branches for name in entry.names]
        self._branch_moves = torch.zeros(len(self._branches), len(self._moves), dtype=torch.float64)
        if self._slices and self.train_coefficients:
            self.groups["coefficients"] = self._moves.requires_grad_(True)
            if self.preconditioner is not None and len(self._branches) > 1:
                self.groups["branches"] = self._branch_moves.requires_grad_(True)
        self._start = trainable(self.scheduler, torch.tensor(list(self.sigmas), dtype=torch.float64))
        around = (index for first in self.first_steps for index in (first - 1, first))
        self._pinned = sorted({0, *around, len(self._start) - 1})
        self._log_gaps = ((self._start[:-1] - self._start[1:]) / (self._start[0] - self._start[-1])).log()
        self._offsets = torch.zeros_like(self._log_gaps)
        if self.train_sigmas:
            self.groups["sigmas"] = self._offsets.requires_grad_(True)
        end = self.timesteps[0] * float(self._start[-1] / self._start[0])
        self._points = torch.tensor([*self.timesteps, end], dtype=torch.float64)
        self._fixed = linear_form(self.scheduler, self.sigmas, self.timesteps)

    def schedule(self) -> Tensor:
        """Return the sigmas (steps + 1,) float64."""
        sections = [self._start[:1]]
        for start, end in pairwise(self._pinned):
            share = torch.softmax((self._log_gaps + self._offsets)[start:end], 0).cumsum(0)
            first, last = self._start[start], self._start[end : end + 1]
            sections += [first + (last - first) * share[:-1], last]
        return torch.cat(sections)

    @torch.no_grad()
    def noise_schedule(self) -> NoiseSchedule:
        """Return the present schedule, in float32, as a policy has it."""
        if not self.train_sigmas:
            return NoiseSchedule.of(self.scheduler, self.sigmas, self.timesteps)
        sigmas = self.schedule()
        timesteps = self._timesteps(sigmas).float()
        return NoiseSchedule.of(self.scheduler, sigmas.float().tolist(), timesteps.tolist())

    def form(self) -> LinearForm:
        """Return the solver on the present sigmas; timesteps follow them."""
        if not self.train_sigmas:
            return self._fixed
        sigmas = self.schedule()
        timesteps = self._timesteps(sigmas)
        form = linear_form(self.scheduler, sigmas, timesteps.detach())
        return LinearForm(form.start, form.velocity, timesteps)

    def _timesteps(self, sigmas: Tensor) -> Tensor:
        """Return the timesteps (steps,) of sigmas (steps + 1,): those of the scheduler at its own sigmas, in straight
        lines between. Where the schedule ends is in proportion to where it starts.
        """
        levels = sigmas[:-1]
        after = torch.searchsorted(-self._start, -levels.detach()).clamp(1, len(self._start) - 1)
        high, low = self._start[after - 1], self._start[after]
        share = (high - levels) / (high - low)
        return self._points[after - 1] + share * (self._points[after] - self._points[after - 1])

    def row(self, branch: str, step: int) -> Row:
        """Return a branch's coefficients at a step, newest first; empty where it computes."""
        where = self._slices.get((branch, step))
        if where is None:
            return ()
        moves = self._moves + self._branch_moves[self._branches.index(branch)]
        return tuple(from_differences(self._coefficients[where] + self._units[where] @ moves).unbind())

    def _units_of_moves(self) -> Tensor:
        """Return what each move changes, (coefficients, moves)."""
        size = len(self._coefficients)
        if self.preconditioner is None:
            return torch.eye(size, dtype=torch.float64)
        directions, units = self.preconditioner
        along = torch.zeros(size, len(directions), dtype=torch.float64)
        for index, direction in enumerate(directions):
            for branch in direction.branches:
                for step in range(direction.first, direction.last + 1):
                    along[self._slices[branch, step].start + direction.term, index] = 1.0
        return along @ units


def _concatenated(policy: Policy) -> tuple[Tensor, dict[tuple[str, int], slice]]:
    # All coefficients in the basis of differences, and where the row of (branch, step) is among them.
    rows = {
        (name, step): to_differences(row)
        for entry in policy.branches
        for name in entry.names
        for step, row in enumerate(entry.predictor)
        if row
    }
    ends = list(accumulate(map(len, rows.values())))
    slices = {key: slice(end - len(row), end) for (key, row), end in zip(rows.items(), ends, strict=True)}
    return torch.cat([torch.zeros(0, dtype=torch.float64), *rows.values()]), slices
