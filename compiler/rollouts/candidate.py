"""The rollout of a candidate: its mask is given, and the coefficients of reused steps are fitted as it goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.fitting.gram import fit, mean_gram
from budc.compiler.fitting.trajectory import CoefficientRows, bounded, fit_trajectory
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.prefix import Prefix
from budc.compiler.rollouts.reference_run import ReferenceRun
from budc.compiler.rollouts.step import CurrentStep, Trajectory
from budc.compiler.search.space import Candidate
from budc.compiler.storage.spill import kept
from budc.runtimes.sampling.rules import fixed_row
from budc.runtimes.sampling.trunk import combine
from budc.schema.policy import Policy
from budc.schema.predictor import MAX_TERMS


def candidate_of(policy: Policy, branches: Sequence[str]) -> Candidate:
    """Return a policy's masks and payload, its coefficients to be fitted anew."""
    masks = [policy.for_branch(name).step_mask() for name in branches]
    shared = masks[:1] if all(mask == masks[0] for mask in masks) else masks
    return Candidate(tuple(shared), "tracked", policy.payload)


class CoefficientFit:
    """Fits coefficients by a candidate's rule, on prompts whose reference run is known.

    "plain" and "linear" are fixed (`budc.runtimes.sampling.rules`). "gram" is least squares on the reference run alone;
    "tracked" starts from that and brings the candidate's own trajectory back to the reference run's states.
    """

    def __init__(self, denoiser: BatchedDenoiser, form: LinearForm, run: ReferenceRun) -> None:
        self.form = form
        self.branches = denoiser.branches
        self.first_steps = denoiser.denoiser.first_steps(form.timesteps)
        self._run = run
        self._grams = {payload: mean_gram(gram) for payload, gram in run.gram.items()}
        self._linear_guidance = denoiser.denoiser.linear

    def rows(self, trajectory: CandidateTrajectory, current: CurrentStep) -> CoefficientRows:
        """Return the coefficients of the branches that reuse at this step, newest first, within their bounds."""
        reusing = [branch for branch in self.branches if branch not in current.computed]
        if not reusing:
            return {}
        rule = trajectory.prefix.rule
        if rule == "plain" or rule == "linear":
            return {
                branch: tuple(map(bounded, fixed_row(rule, trajectory.step, _steps(trajectory, branch))))
                for branch in reusing
            }
        step, grams = trajectory.step, self._grams[trajectory.prefix.payload]
        rows = {
            branch: fit(grams[self.branches.index(branch)], step, _steps(trajectory, branch))[0]
            for branch in reusing
        }
        if rule == "tracked":
            rows = self._tracked(trajectory, current, rows)
        return {branch: tuple(bounded(value) for value in row) for branch, row in rows.items()}

    def _tracked(
        self, trajectory: CandidateTrajectory, current: CurrentStep, prior: CoefficientRows
    ) -> dict[str, tuple[float, ...]]:
        step = trajectory.step
        rest = self.form.partial_latents(step + 1, trajectory.noise, trajectory.velocities)
        weight = float(self.form.velocity[step + 1, step])
        wanted = (self._run.state(step + 1) - rest) / weight
        return fit_trajectory(
            {branch: [cached for _, cached in trajectory.newest(branch)] for branch in prior},
            prior,
            current.velocity,
            current.guide,
            lambda velocity: wanted - velocity,
            linear=trajectory.payload.linear and self._linear_guidance,
        )


class CandidateTrajectory(Trajectory):
    """A rollout along one prefix: what its branches have cached, with the step, newest first, and its rows.

    A step that was taken before is taken again from these, without the network (`release`). What is cached lies in
    `folder` where memory is short.
    """

    def __init__(self, prefix: Prefix, noise: Tensor, coefficients: CoefficientFit, folder: Path) -> None:
        super().__init__(coefficients.form, noise, prefix.payload)
        self.prefix = prefix
        self.folder = folder
        self.cached: dict[str, tuple[tuple[int, Tensor], ...]] = {}
        self.rows: list[CoefficientRows] = []
        self._coefficients = coefficients

    def extended(self, prefix: Prefix) -> CandidateTrajectory:
        """Return a copy at the last step of a longer prefix, not yet taken; this one has taken all steps before it."""
        copy = CandidateTrajectory(prefix, self.noise, self._coefficients, self.folder)
        copy.velocities, copy.rows = self.velocities[: prefix.step], self.rows[: prefix.step]
        copy.cached = dict(self.cached)
        return copy

    def release(self) -> None:
        """Drop the velocities and go back to the first step, if no step needs the network to be taken again."""
        if self.payload.linear:
            self.velocities = []

    def newest(self, branch: str) -> tuple[tuple[int, Tensor], ...]:
        """Return what a branch may combine at this step: as much as a row may, all of the network that runs now."""
        first = max((step for step in self._coefficients.first_steps if step <= self.step), default=0)
        cached = self.cached.get(branch, ())
        return tuple(entry for entry in cached if first <= entry[0] <= self.step)[:MAX_TERMS]

    def computing(self) -> Collection[str]:
        """Return the prefix's branches at its last step where that was not taken before, none elsewhere."""
        return self.prefix.computing if self.step == self.prefix.step == len(self.rows) else ()

    def cache(self, branch: str, cached: Tensor) -> None:
        """Keep it with its step. Raises OutputError: see `budc.compiler.storage.spill.kept`."""
        self.cached[branch] = ((self.step, kept(cached, self.folder)), *self.cached.get(branch, ()))

    def reused(self, current: CurrentStep) -> Mapping[str, Tensor]:
        """Fit this step's coefficients, unless that was done before, and combine with them."""
        step = self.step
        if step == len(self.rows):
            self.rows.append(self._coefficients.rows(self, current))
        combined = {}
        for branch in self._coefficients.branches:
            if branch not in current.computed:
                # A branch that computed when this step was first taken has no row: its newest is what it computed.
                row = self.rows[step].get(branch, (1.0,))
                combined[branch] = combine(row, [cached for _, cached in self.newest(branch)[: len(row)]])
        return combined


def _steps(trajectory: CandidateTrajectory, branch: str) -> list[int]:
    return [step for step, _ in trajectory.newest(branch)]
