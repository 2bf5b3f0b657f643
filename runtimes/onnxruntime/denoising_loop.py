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

from budc.runtimes.exported.manifest import TERMS, GraphName
from budc.runtimes.onnxruntime.branches import grouped, guided_branches
from budc.runtimes.onnxruntime.buffers import Group, LoopBuffers
from budc.runtimes.onnxruntime.fused_steps import fuse_steps, separate_steps
from budc.runtimes.onnxruntime.io_binding import Buffer, Call
from budc.runtimes.onnxruntime.sessions import Sessions
from budc.runtimes.onnxruntime.update_graph import update_model
from budc.runtimes.sampling.solvers import solver_matrices
from budc.runtimes.sampling.steps import Compute, StepMachine
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


class DenoisingLoop:
    """A policy ready to run on batches of one size.

    Raises:
        UnsupportedModel: the sampler has no solver here.
    """

    def __init__(self, sessions: Sessions, document: PolicyDocument, batch: int = 1) -> None:
        manifest, policy = sessions.manifest, document.policy
        self.document = document
        self.machine: StepMachine[Residual] = StepMachine(policy, combine)
        self.calls_of: dict[str, int] = {}
        """How many samples went through each graph in the last run."""
        self._sessions = sessions
        self._provider = sessions.provider
        self._guidance = guided_branches(document, manifest.branches)
        self._reuses_velocities = policy.payload == "velocity"
        groups, weights = grouped(policy, list(self._guidance)), list(self._guidance.values())
        solver = solver_matrices(document.sampler)
        if self._reuses_velocities:
            self._stretches = fuse_steps(solver, policy, groups, weights)
        else:
            self._stretches = separate_steps(solver, weights)
        self._tensors = LoopBuffers(self._provider, manifest, document, self._stretches, groups, batch)
        self._updater = self._provider.open(
            update_model(
                self._stretches,
                document.sampler.timesteps,
                len(weights),
                (batch, *manifest.sample),
                self._tensors.hidden.dtype.name,
            ),
            captured=True,
        )
        self._calls: dict[Any, Call] = {}
        self._coefficients: dict[tuple[float, ...], Buffer] = {}
        self._used: dict[str, Residual] = {}
        self._updates = 0

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
        self._tensors.begin_run(embeddings, noise)
        self.calls_of.clear()
        self.machine.begin_run()
        self._updates = 0
        try:
            for step in range(self.document.sampler.steps):
                for group in self._tensors.groups:
                    self._forward(group, step)
                if step in self._stretches.ends:
                    self._update()
                if on_step is not None and on_step(step) is False:
                    self._end_at(step)
                    break
        finally:
            self.machine.begin_run()
        state = self._tensors.states[self._updates % 2].read()
        return np.asarray(state[0], np.float32).reshape(noise.shape)

    @property
    def velocities(self) -> dict[str, NDArray[Any]]:
        """The velocity of each branch in the last step (B, ...), copied from the device."""
        parts = []
        for group in self._tensors.groups:
            terms = self._used[group.name].terms
            parts.append(np.sum([c * buffer.read().astype(np.float32) for c, buffer in terms], axis=0))
        split = np.split(np.concatenate(parts), len(self._guidance))
        return dict(zip(self._guidance, split, strict=True))

    def _forward(self, group: Group, step: int) -> None:
        action = self.machine.step(group.name, step)
        velocity, residual = group.slot(group.velocities, step), group.slot(group.residuals, step)
        if isinstance(action, Compute):
            self._call("compute", group, {}, {"velocity": velocity, "residual": residual})
            reused = velocity if self._reuses_velocities else residual
            self.machine.record(group.name, Residual(((1.0, reused),)))
        elif self._reuses_velocities:
            self._used[group.name] = action.cached
            return
        else:
            self._reuse(group, action.cached, velocity)
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
            tensors = self._tensors
            inputs = {
                "state": tensors.states[now],
                "until": tensors.until[now],
                "velocities": tensors.velocities,
            }
            outputs = {
                "state_next": tensors.states[following],
                "until_next": tensors.until[following],
                "hidden_states": tensors.hidden,
                "timestep": tensors.timestep,
            }
            self._calls[key] = Call(self._updater, inputs, outputs, self._sessions.next_graph())
        self._calls[key]()
        self._updates += 1

    def _end_at(self, step: int) -> None:
        """Take the last update again, no further than `step`: what it started from is still there."""
        if step not in self._stretches.ends.values():
            self._updates -= 1
            self._tensors.until[self._updates % 2].write(np.array([step], np.int64))
            self._update()

    def _constant(self, coefficients: tuple[float, ...]) -> Buffer:
        if coefficients not in self._coefficients:
            self._coefficients[coefficients] = Buffer.of(self._provider, np.asarray(coefficients, np.float32))
        return self._coefficients[coefficients]
