"""The rollout of a candidate: its mask is given, and the coefficients of reused steps are fitted as it goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.fitting.gram import fit, mean_gram
from budc.compiler.fitting.trajectory import CoefficientRows, bounded, fit_trajectory
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.reference_run import ReferenceRun
from budc.compiler.rollouts.step import CurrentStep, Trajectory
from budc.compiler.search.space import Candidate, Rule
from budc.runtimes.sampling.rules import fixed_row
from budc.runtimes.sampling.trunk import combine
from budc.schema.policy import Payload, Policy
from budc.schema.predictor import MAX_TERMS


class Prefix(NamedTuple):
    """What a candidate does up to and including a computed step: (step, branches that compute there), in order."""

    payload: Payload
    rule: Rule
    events: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def step(self) -> int:
        """The last computed step."""
        return self.events[-1][0]

    @property
    def computing(self) -> tuple[str, ...]:
        """The branches that compute there."""
        return self.events[-1][1]

    @property
    def parent(self) -> Prefix | None:
        """The prefix up to the computed step before; None where this is the first."""
        return self._replace(events=self.events[:-1]) if len(self.events) > 1 else None


def candidate_of(policy: Policy, branches: Sequence[str]) -> Candidate:
    """Return a policy's masks and payload, its coefficients to be fitted anew."""
    masks = [policy.for_branch(name).step_mask() for name in branches]
    shared = masks[:1] if all(mask == masks[0] for mask in masks) else masks
    return Candidate(tuple(shared), "tracked", policy.payload)


def prefixes(candidate: Candidate, branches: Sequence[str]) -> list[Prefix]:
    """Return a candidate's prefixes, shortest first: one for every step at which some branch computes."""
    masks = candidate.masks if len(candidate.masks) > 1 else candidate.masks * len(branches)
    events = []
    for step, computed in enumerate(zip(*masks, strict=True)):
        if any(computed):
            events.append((step, tuple(name for name, own in zip(branches, computed, strict=True) if own)))
    return [
        Prefix(candidate.payload, candidate.rule, tuple(events[: index + 1])) for index in range(len(events))
    ]


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
                branch: tuple(
                    map(bounded, fixed_row(rule, trajectory.step, trajectory.computed_steps[branch]))
                )
                for branch in reusing
            }
        step, grams = trajectory.step, self._grams[trajectory.prefix.payload]
        rows = {
            branch: fit(grams[self.branches.index(branch)], step, trajectory.computed_steps[branch])[0]
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
            {branch: trajectory.cached[branch] for branch in prior},
            prior,
            current.velocity,
            current.guide,
            lambda velocity: wanted - velocity,
            linear=current.payload.linear and self._linear_guidance,
        )


class CandidateTrajectory(Trajectory):
    """A rollout along one prefix: what its branches have cached and at which steps, newest first, and its rows."""

    def __init__(self, prefix: Prefix, noise: Tensor, coefficients: CoefficientFit) -> None:
        super().__init__(coefficients.form, noise, prefix.payload)
        self.prefix = prefix
        self.cached: dict[str, tuple[Tensor, ...]] = {}
        self.computed_steps: dict[str, tuple[int, ...]] = {}
        self.rows: list[CoefficientRows] = []
        self._coefficients = coefficients

    def extended(self, prefix: Prefix) -> CandidateTrajectory:
        """Return a copy at the last step of a longer prefix, not yet taken; this one has taken all steps before it."""
        copy = CandidateTrajectory(prefix, self.noise, self._coefficients)
        copy.velocities, copy.rows = self.velocities[: prefix.step], self.rows[: prefix.step]
        # Nothing that is cached crosses from one network to the next.
        if prefix.step not in self._coefficients.first_steps:
            copy.cached, copy.computed_steps = dict(self.cached), dict(self.computed_steps)
        return copy

    def computing(self) -> Collection[str]:
        """Return the prefix's branches at its last step, none after it."""
        return self.prefix.computing if self.step == self.prefix.step else ()

    def cache(self, branch: str, cached: Tensor) -> None:
        """Keep the newest, as many as a row may combine."""
        self.cached[branch] = (cached, *self.cached.get(branch, ()))[:MAX_TERMS]
        self.computed_steps[branch] = (self.step, *self.computed_steps.get(branch, ()))[:MAX_TERMS]

    def reused(self, current: CurrentStep) -> Mapping[str, Tensor]:
        """Fit this step's coefficients and combine with them."""
        rows = self._coefficients.rows(self, current)
        self.rows.append(rows)
        return {branch: combine(row, self.cached[branch][: len(row)]) for branch, row in rows.items()}
