"""The tree of rollouts: candidates that begin alike share what they computed, exactly.

A node is the state after a computed step: which steps were computed until then, by which branches. Reused steps
need no node; a node is carried along them as far as some candidate asks. Two candidates share every node up to
the first step at which they differ, because what a rule does at a step depends on the past alone.

Memory is bounded by forgetting the nodes that were used longest ago. Which ones are remembered is decided on
names, not tensors: a resumed search goes through the names of what it had scored (`Tree.note`), and then counts
the forwards that an undisturbed one counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.fitting.gram import fit, mean_gram
from budc.compiler.fitting.trajectory import CoefficientRows, bounded, fit_trajectory
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.metrics import latent_errors
from budc.compiler.rollouts.reference_run import ReferenceRun
from budc.compiler.search.space import Candidate
from budc.runtimes.sampling.trunk import combine
from budc.schema.predictor import MAX_TERMS

MEMORY = 4 << 30
"""Bytes of states that are remembered, by default."""

Event = tuple[int, tuple[str, ...]]
Name = tuple[str, str, tuple[Event, ...]]


@dataclass
class State:
    """Where a rollout stands: guided velocities so far, each branch's residuals and their steps, newest first."""

    velocities: list[Tensor] = field(default_factory=list)
    residuals: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    computed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows: list[CoefficientRows] = field(default_factory=list)

    def until(self, step: int) -> State:
        """Return the state as it was before `step`."""
        return State(self.velocities[:step], dict(self.residuals), dict(self.computed), self.rows[:step])

    def forget(self) -> None:
        """Let go of the residuals: another network takes over."""
        self.residuals.clear()
        self.computed.clear()


@dataclass(frozen=True)
class Rollout:
    """What a candidate came to: its squared errors per prompt, its coefficients per step and branch, its cost."""

    errors: tuple[float, ...]
    rows: tuple[CoefficientRows, ...]
    forwards: int


class Tree:
    """Rolls out candidates on one prompt set, whose full run is known.

    `network.forwards` counts what was really computed; `Rollout.forwards` what an undisturbed search computes.
    """

    def __init__(
        self, network: BatchedDenoiser, form: LinearForm, run: ReferenceRun, memory: int = MEMORY
    ) -> None:
        self.network = network
        self.form = form
        self.run = run
        self._memory = memory
        self._times = form.timesteps.float()
        self._first_steps = network.denoiser.first_steps(form.timesteps)
        self._grams = {payload: mean_gram(gram) for payload, gram in run.gram.items()}
        self._remembered: OrderedDict[Name, None] = OrderedDict()
        self._states: dict[Name, State] = {}

    def events(self, candidate: Candidate) -> tuple[Event, ...]:
        """Return the steps at which some branch computes, and which do."""
        branches = self.network.denoiser.branches
        masks = candidate.masks if len(candidate.masks) > 1 else candidate.masks * len(branches)
        found = []
        for step in range(self.form.steps):
            computing = tuple(name for name, mask in zip(branches, masks, strict=True) if mask[step])
            if computing:
                found.append((step, computing))
        return tuple(found)

    def note(self, candidate: Candidate) -> int:
        """Remember a candidate by name alone; return the forwards that rolling it out costs at this point."""
        names = self._names(candidate)
        known = max((index for index, name in enumerate(names) if name in self._remembered), default=-1)
        cost = sum(len(name[2][-1][1]) for name in names[known + 1 :]) * self.network.samples
        for name in names:
            self._remembered[name] = None
            self._remembered.move_to_end(name)
        room = max(len(names), self._memory // self._bytes)
        while len(self._remembered) > room:
            self._states.pop(self._remembered.popitem(last=False)[0], None)
        return cost

    def roll_out(self, candidates: Sequence[Candidate]) -> list[Rollout]:
        """Roll out candidates together: those that compute at the same step do so in one batch."""
        costs = [self.note(candidate) for candidate in candidates]
        live = dict(self._states)
        missing = {name for candidate in candidates for name in self._unknown(self._names(candidate), live)}
        for step in sorted({name[2][-1][0] for name in missing}):
            self._grow([name for name in sorted(missing) if name[2][-1][0] == step], live)
        rollouts = []
        for candidate, cost in zip(candidates, costs, strict=True):
            name = self._names(candidate)[-1]
            self._carry(live[name], name, self.form.steps)
            latents = self.form.latents(self.form.steps, self._noise, live[name].velocities)
            errors = latent_errors(latents, self.run.latents)
            rollouts.append(Rollout(tuple(errors), tuple(live[name].rows), cost))
        self._states = {name: state for name, state in live.items() if name in self._remembered}
        return rollouts

    @property
    def _noise(self) -> Tensor:
        return self.network.conditions.noise

    @property
    def _bytes(self) -> int:
        # A node holds the newest payload of every branch, and the velocities until the next one.
        noise, branches = self._noise, len(self.network.denoiser.branches)
        velocities = noise.numel() * noise.element_size() * (branches + self.form.steps // 4)
        return velocities + branches * self.run.residual_bytes * self.network.samples

    def _names(self, candidate: Candidate) -> list[Name]:
        events = self.events(candidate)
        return [(candidate.payload, candidate.rule, events[: index + 1]) for index in range(len(events))]

    def _unknown(self, names: Iterable[Name], live: Mapping[Name, State]) -> list[Name]:
        # From the newest back to one that is there: what is before it is not needed.
        wanted = []
        for name in reversed(list(names)):
            if name in live:
                break
            wanted.append(name)
        return wanted

    def _grow(self, names: Sequence[Name], live: dict[Name, State]) -> None:
        step = names[0][2][-1][0]
        states = []
        for payload, rule, events in names:
            parent = (payload, rule, events[:-1])
            if events[:-1]:
                self._carry(live[parent], parent, step)
            states.append(live[parent].until(step) if events[:-1] else State())
            if step in self._first_steps:
                states[-1].forget()
        latents = [self.form.latents(step, self._noise, state.velocities) for state in states]
        fresh: list[dict[str, Tensor]] = [{} for _ in names]
        for branch in self.network.denoiser.branches:
            chosen = [index for index, name in enumerate(names) if branch in name[2][-1][1]]
            for index, velocity, residual in self._computed(branch, chosen, latents, step):
                fresh[index][branch] = velocity
                state = states[index]
                kept = velocity if names[index][0] == "velocity" else residual
                state.residuals[branch] = (kept, *state.residuals.get(branch, ()))[:MAX_TERMS]
                state.computed[branch] = (step, *state.computed.get(branch, ()))[:MAX_TERMS]
        for name, state, velocities in zip(names, states, fresh, strict=True):
            self._step(state, name, velocities)
            live[name] = state

    def _computed(
        self, branch: str, chosen: Sequence[int], latents: Sequence[Tensor], step: int
    ) -> Iterable[tuple[int, Tensor, Tensor]]:
        if not chosen:
            return []
        stacked = torch.cat([latents[index] for index in chosen])
        velocity, residual = self.network.compute(branch, stacked, self._times[step])
        size = self.network.samples
        return zip(chosen, velocity.split(size), residual.split(size), strict=True)

    def _carry(self, state: State, name: Name, step: int) -> None:
        while len(state.velocities) < step:
            self._step(state, name, {})

    def _step(self, state: State, name: Name, velocities: Mapping[str, Tensor]) -> None:
        """Finish the step that `state` is at: branches without a velocity reuse."""
        payload, rule, _ = name
        step = len(state.velocities)
        denoiser = self.network.denoiser
        reusing = [branch for branch in denoiser.branches if branch not in velocities]
        rows = self._rows(state, payload, rule, reusing, velocities) if reusing else {}
        found = dict(velocities)
        for branch in reusing:
            found[branch] = self._velocity(
                payload, branch, _combine(rows[branch], state.residuals[branch]), state, step
            )
        state.rows.append(rows)
        ordered = {branch: found[branch] for branch in denoiser.branches}
        state.velocities.append(denoiser.guide(ordered, self._times[step]))

    def _velocity(self, payload: str, branch: str, residual: Tensor, state: State, step: int) -> Tensor:
        if payload == "velocity":
            return residual
        latents = self.form.latents(step, self._noise, state.velocities)
        return self.network.reuse(branch, residual, latents, self._times[step])

    def _rows(
        self,
        state: State,
        payload: str,
        rule: str,
        reusing: Sequence[str],
        velocities: Mapping[str, Tensor],
    ) -> CoefficientRows:
        if rule == "plain":
            return dict.fromkeys(reusing, (1.0,))
        step, denoiser = len(state.velocities), self.network.denoiser
        order = denoiser.branches
        prior = {
            branch: fit(self._grams[payload][order.index(branch)], step, state.computed[branch])[0]
            for branch in reusing
        }
        if rule == "tracked":
            rest = self.form.without(step + 1, self._noise, state.velocities)
            gain = float(self.form.velocity[step + 1, step])

            def guided(reused: Mapping[str, Tensor]) -> Tensor:
                found = {**velocities, **reused}
                return denoiser.guide({branch: found[branch] for branch in order}, self._times[step])

            prior = fit_trajectory(
                {branch: state.residuals[branch] for branch in reusing},
                prior,
                lambda branch, residual: self._velocity(payload, branch, residual, state, step),
                guided,
                lambda now: (self.run.states[step + 1] - rest) / gain - now,
                linear=payload == "velocity" and denoiser.linear,
            )
        return {branch: tuple(bounded(value) for value in row) for branch, row in prior.items()}


def _combine(row: Sequence[float], residuals: Sequence[Tensor]) -> Tensor:
    return combine(row, residuals[: len(row)])
