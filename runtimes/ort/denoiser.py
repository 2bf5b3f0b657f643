"""Denoiser: from noise to final latents, one policy on one pair of graphs, all of it in device memory.

For every step and group of guidance branches the step machine says compute or reuse; the call that does so
is bound to fixed memory the first time that it is needed, and from then on only run. Branches that share
one mask run as one batch, and steps that run no part of the network are taken together (`stretches`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.manifest import TERMS, GraphName, TensorSpec
from budc.runtimes.ort.branches import Rows, grouped, guided_branches, slots_of
from budc.runtimes.ort.memory import Buffer, Call
from budc.runtimes.ort.sessions import Sessions
from budc.runtimes.ort.stretches import residual_stretches, velocity_stretches
from budc.runtimes.ort.update import update_model
from budc.runtimes.solvers import solver_matrices
from budc.runtimes.steps import Compute, StepMachine
from budc.schema.errors import RefusedRun
from budc.schema.policy import PolicyDocument

OnStep = Callable[[int], object]
"""Called after each step with its index; returning False ends the run there."""


@dataclass(frozen=True)
class Residual:
    """Σ coefficient · tensor, not added up yet: a graph does that where it is used."""

    terms: tuple[tuple[float, Buffer], ...]


def combine(coefficients: Sequence[float], residuals: Sequence[Residual]) -> Residual:
    """Return the combination of residuals that were recorded, for `StepMachine`."""
    return Residual(tuple((c, r.terms[0][1]) for c, r in zip(coefficients, residuals, strict=True)))


@dataclass(frozen=True)
class Group:
    """Guidance branches that run in one forward: what they are given, and where they write."""

    name: str
    samples: int
    inputs: Mapping[str, Buffer]
    filled: tuple[int, ...]
    """The slot that each step fills, if it is computed."""
    velocities: Sequence[Buffer]
    residuals: Sequence[Buffer]
    """Slots of either; of what is not reused there is one, written over by every forward."""

    def slot(self, buffers: Sequence[Buffer], step: int) -> Buffer:
        """Return where a computed step writes."""
        return buffers[self.filled[step] % len(buffers)]


class Denoiser:
    """A policy ready to run on batches of one size.

    Raises:
        UnsupportedModel: the sampler has no solver here.
    """

    def __init__(self, sessions: Sessions, document: PolicyDocument, batch: int = 1) -> None:
        manifest = sessions.manifest
        self.document = document
        self.machine: StepMachine[Residual] = StepMachine(document.policy, combine)
        self.calls_of: dict[str, int] = {}
        """How many samples went through each graph in the last run."""
        self._sessions = sessions
        self._provider = sessions.provider
        self._batch = batch
        self._latents = (batch, *manifest.sample)
        self._guidance = guided_branches(document, manifest.branches)
        self._reuses_velocities = document.policy.payload == "velocity"
        self._calls: dict[Any, Call] = {}
        self._coefficients: dict[tuple[float, ...], Buffer] = {}
        self._used: dict[str, Residual] = {}
        self._updates = 0
        self._allocate(grouped(document.policy, list(self._guidance)))

    def run(
        self,
        embeddings: Mapping[str, NDArray[Any]],
        noise: NDArray[np.float32],
        on_step: OnStep | None = None,
    ) -> NDArray[np.float32]:
        """Return the final latents (B, ...), float32.

        Args:
            embeddings: by the names of the graphs' inputs, (branches · B, ...) each, branch after branch.
            noise: (B, ...), float32.
            on_step: called after each step; what it raises ends the run and leaves nothing behind.
        """
        self._begin_run(embeddings, noise)
        try:
            for step in range(self.document.sampler.steps):
                for group in self._groups:
                    self._forward(group, step)
                if step in self._stretches.ends:
                    self._update()
                if on_step is not None and on_step(step) is False:
                    self._end_at(step)
                    break
        finally:
            self.machine.begin_run()
        state = self._states[self._updates % 2].read()
        return np.asarray(state[0], np.float32).reshape(self._latents)

    @property
    def velocities(self) -> dict[str, NDArray[Any]]:
        """The velocity of each branch in the last step (B, ...), copied from the device."""
        parts = []
        for group in self._groups:
            terms = self._used[group.name].terms
            parts.append(np.sum([c * buffer.read().astype(np.float32) for c, buffer in terms], axis=0))
        split = np.split(np.concatenate(parts), len(self._guidance))
        return dict(zip(self._guidance, split, strict=True))

    # Memory ----------------------------------------------------------------------------------------------

    def _allocate(self, groups: Sequence[Rows]) -> None:
        manifest, sampler, policy = self._sessions.manifest, self.document.sampler, self.document.policy
        solver, guidance = solver_matrices(sampler), list(self._guidance.values())
        if self._reuses_velocities:
            self._stretches = velocity_stretches(solver, policy, groups, guidance)
        else:
            self._stretches = residual_stretches(solver, guidance)
        _, remembered, known = self._stretches.matrices.shape
        slots, forwards = (known - remembered) // len(guidance), len(guidance) * self._batch
        compute = manifest.graphs["compute"]
        by_name = {spec.name: spec for spec in (*compute.inputs, *compute.outputs)}
        new = self._new
        self._hidden = new(by_name["hidden_states"], forwards)
        self._velocities = new(by_name["velocity"], slots * forwards)
        self._embeddings = {name: new(by_name[name], forwards) for name in manifest.conditions}
        self._timestep = Buffer.new(self._provider, "float32", (forwards,))
        elements = int(np.prod(self._latents))
        self._states = [Buffer.new(self._provider, "float32", (remembered, elements)) for _ in range(2)]
        self._until = [Buffer.new(self._provider, "int64", (1,)) for _ in range(2)]
        inputs = {"hidden_states": self._hidden, "timestep": self._timestep, **self._embeddings}
        # Where velocities are reused, residuals of all groups go to one place, and nowhere from there.
        unused = new(by_name["residual"], forwards) if self._reuses_velocities else None
        self._groups = []
        for rows in groups:
            ring = slots_of(policy, rows.name)
            first, last = rows.first * self._batch, rows.last * self._batch
            if unused is None:
                residuals = [new(by_name["residual"], last - first) for _ in range(ring.count)]
            else:
                residuals = [unused.rows(0, last - first)]
            self._groups.append(
                Group(
                    rows.name,
                    last - first,
                    {name: buffer.rows(first, last) for name, buffer in inputs.items()},
                    ring.filled,
                    [self._velocities.rows(s * forwards + first, s * forwards + last) for s in range(slots)],
                    residuals,
                )
            )
        dtype = self._hidden.dtype.name
        self._updater = self._provider.open(
            update_model(
                self._stretches, sampler.timesteps, len(guidance), self._latents[1:], self._batch, dtype
            )
        )

    def _new(self, spec: TensorSpec, rows: int) -> Buffer:
        extents = [rows if extent is None else extent for extent in spec.shape]
        return Buffer.new(self._provider, spec.dtype, extents)

    # Steps -----------------------------------------------------------------------------------------------

    def _begin_run(self, embeddings: Mapping[str, NDArray[Any]], noise: NDArray[np.float32]) -> None:
        given = {"noise": noise.shape} | {name: value.shape for name, value in embeddings.items()}
        wanted = {"noise": self._latents} | {name: tuple(b.shape) for name, b in self._embeddings.items()}
        for name, shape in wanted.items():
            if given.get(name) != shape:
                raise RefusedRun(f"{name}: {given.get(name, 'nothing')} was given, expected {shape}")
        state = np.zeros(self._states[0].shape, np.float32)
        state[0] = noise.reshape(-1)
        self._states[0].write(state)
        # A slot that is not filled yet counts zero times, which is a number only if what it holds is one.
        self._velocities.write(np.zeros(self._velocities.shape, self._velocities.dtype))
        self._until[0].write(np.array([self._stretches.ends[0]], np.int64))
        self._hidden.write(np.concatenate([noise] * len(self._guidance)))
        self._timestep.write(np.full(self._timestep.shape, self.document.sampler.timesteps[0], np.float32))
        for name, buffer in self._embeddings.items():
            buffer.write(embeddings[name])
        self._updates = 0
        self.calls_of.clear()
        self.machine.begin_run()

    def _forward(self, group: Group, step: int) -> None:
        action = self.machine.step(group.name, step)
        velocity, residual = group.slot(group.velocities, step), group.slot(group.residuals, step)
        if isinstance(action, Compute):
            self._call("compute", group, {}, {"velocity": velocity, "residual": residual})
            reused = velocity if self._reuses_velocities else residual
            self.machine.record(group.name, Residual(((1.0, reused),)))
        elif self._reuses_velocities:
            self._used[group.name] = action.residual
            return
        else:
            self._reuse(group, action.residual, velocity)
        self._used[group.name] = Residual(((1.0, velocity),))

    def _reuse(self, group: Group, residual: Residual, velocity: Buffer) -> None:
        coefficients = tuple(coefficient for coefficient, _ in residual.terms)
        buffers = [buffer for _, buffer in residual.terms]
        if coefficients == (1.0,):
            self._call("reuse", group, {"residual": buffers[0]}, {"velocity": velocity})
            return
        # Places without a term take the newest residual, zero times.
        padded = [*buffers, *[buffers[0]] * (TERMS - len(buffers))]
        inputs = {f"residual_{index}": buffer for index, buffer in enumerate(padded)}
        inputs["coefficients"] = self._constant((*coefficients, *[0.0] * (TERMS - len(buffers))))
        self._call("reuse_terms", group, inputs, {"velocity": velocity})

    def _call(
        self, name: GraphName, group: Group, more: dict[str, Buffer], outputs: dict[str, Buffer]
    ) -> None:
        self.calls_of[name] = self.calls_of.get(name, 0) + group.samples
        key = (name, group.name, *(buffer.address for buffer in (*more.values(), *outputs.values())))
        if key not in self._calls:
            session, graph = self._sessions.of(name, group.samples), self._sessions.next_graph()
            self._calls[key] = Call(session, {**group.inputs, **more}, outputs, graph)
        self._calls[key]()

    def _update(self) -> None:
        now, following = self._updates % 2, 1 - self._updates % 2
        key = ("update", now)
        if key not in self._calls:
            inputs = {
                "state": self._states[now],
                "until": self._until[now],
                "velocities": self._velocities,
            }
            outputs = {
                "state_next": self._states[following],
                "until_next": self._until[following],
                "hidden_states": self._hidden,
                "timestep": self._timestep,
            }
            self._calls[key] = Call(self._updater, inputs, outputs)
        self._calls[key]()
        self._updates += 1

    def _end_at(self, step: int) -> None:
        """Take the last update again, no further than `step`: what it started from is still there."""
        if step not in self._stretches.ends.values():
            self._updates -= 1
            self._until[self._updates % 2].write(np.array([step], np.int64))
            self._update()

    def _constant(self, coefficients: tuple[float, ...]) -> Buffer:
        if coefficients not in self._coefficients:
            self._coefficients[coefficients] = Buffer.of(self._provider, np.asarray(coefficients, np.float32))
        return self._coefficients[coefficients]
