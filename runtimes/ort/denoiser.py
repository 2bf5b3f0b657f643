"""Denoiser: from noise to final latents, one policy on one pair of graphs, all of it in device memory.

For every step and group of guidance branches the step machine says compute or reuse; the call that does so
is bound to fixed memory the first time that it is needed, and from then on only run. Branches that share
one mask run as one batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from budc.runtimes.manifest import TERMS, GraphName, TensorSpec
from budc.runtimes.ort.branches import Group, grouped, guided_branches, plan_of
from budc.runtimes.ort.memory import Buffer, Call
from budc.runtimes.ort.sessions import Sessions
from budc.runtimes.ort.update import combination_model, state_rows, update_model
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
        self._calls: dict[Any, Call] = {}
        self._coefficients: dict[tuple[float, ...], Buffer] = {}
        self._combiners: dict[int, ort.InferenceSession] = {}
        self._allocate()

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
        sampler = self.document.sampler
        self._begin_run(embeddings, noise)
        step = -1
        try:
            for step in range(sampler.steps):
                for group in self._groups:
                    self._forward(group, step)
                self._update(step % 2)
                if on_step is not None and on_step(step) is False:
                    break
        finally:
            self.machine.begin_run()
        state = self._states[(step + 1) % 2].read()
        return np.asarray(state[0], np.float32).reshape(self._latents)

    @property
    def velocities(self) -> dict[str, NDArray[Any]]:
        """The velocity of each branch in the last step (B, ...), copied from the device."""
        parts = np.split(self._velocity.read(), len(self._guidance))
        return dict(zip(self._guidance, parts, strict=True))

    # Memory ----------------------------------------------------------------------------------------------

    def _allocate(self) -> None:
        manifest, sampler, names = self._sessions.manifest, self.document.sampler, list(self._guidance)
        forwards, remembered = len(names) * self._batch, state_rows(sampler)
        compute = manifest.graphs["compute"]
        by_name = {spec.name: spec for spec in (*compute.inputs, *compute.outputs)}
        new = self._new
        self._hidden, self._velocity = (
            new(by_name[name], forwards) for name in ("hidden_states", "velocity")
        )
        self._embeddings = {name: new(by_name[name], forwards) for name in manifest.conditions}
        self._timestep = Buffer.new(self._provider, "float32", (forwards,))
        self._states = [
            Buffer.new(self._provider, "float32", (remembered, int(np.prod(self._latents)))) for _ in range(2)
        ]
        self._steps = [Buffer.new(self._provider, "int64", (1,)) for _ in range(2)]
        is_residual = self.document.policy.payload == "trunk-residual"
        payload = by_name["residual" if is_residual else "velocity"]
        self._unused = None if is_residual else new(by_name["residual"], forwards)
        self._groups = []
        inputs = {
            "hidden_states": self._hidden,
            "timestep": self._timestep,
            **self._embeddings,
        }
        for name, first, last in grouped(self.document.policy, names):
            kept = max(planned.keep for planned in plan_of(self.document.policy, names[first]))
            slots = [new(payload, (last - first) * self._batch) for _ in range(kept + 1)]
            rows = (first * self._batch, last * self._batch)
            self._groups.append(Group(name, rows, inputs, self._velocity, slots))
        self._updater = self._provider.open(
            update_model(
                sampler,
                list(self._guidance.values()),
                self._latents[1:],
                self._batch,
                self._hidden.dtype.name,
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
        self._steps[0].write(np.zeros(1, np.int64))
        self._hidden.write(np.concatenate([noise] * len(self._guidance)))
        self._timestep.write(np.full(self._timestep.shape, self.document.sampler.timesteps[0], np.float32))
        for name, buffer in self._embeddings.items():
            buffer.write(embeddings[name])
        self.calls_of.clear()
        self.machine.begin_run()
        for group in self._groups:
            group.begin_run()

    def _forward(self, group: Group, step: int) -> None:
        action = self.machine.step(group.name, step)
        if isinstance(action, Compute):
            slot = group.slot()
            self._compute(group, slot)
            self.machine.record(group.name, Residual(((1.0, slot),)))
        else:
            self._reuse(group, action.residual)

    def _compute(self, group: Group, slot: Buffer) -> None:
        if self._unused is None:
            self._call("compute", group, {}, {"velocity": group.velocity, "residual": slot})
            return
        # The velocity is what later steps reuse, so it is kept and copied; the residual goes nowhere.
        unused = self._unused.rows(0, group.samples)
        self._call("compute", group, {}, {"velocity": slot, "residual": unused})
        self._combine(Residual(((1.0, slot),)), group.velocity)

    def _reuse(self, group: Group, residual: Residual) -> None:
        coefficients = tuple(coefficient for coefficient, _ in residual.terms)
        buffers = [buffer for _, buffer in residual.terms]
        if self._unused is not None:
            self._combine(residual, group.velocity)
        elif coefficients == (1.0,):
            self._call("reuse", group, {"residual": buffers[0]}, {"velocity": group.velocity})
        else:
            # Places without a term take the newest residual, zero times.
            padded = [*buffers, *[buffers[0]] * (TERMS - len(buffers))]
            inputs = {f"residual_{index}": buffer for index, buffer in enumerate(padded)}
            inputs["coefficients"] = self._constant((*coefficients, *[0.0] * (TERMS - len(buffers))))
            self._call("reuse_terms", group, inputs, {"velocity": group.velocity})

    def _call(
        self, name: GraphName, group: Group, more: dict[str, Buffer], outputs: dict[str, Buffer]
    ) -> None:
        self.calls_of[name] = self.calls_of.get(name, 0) + group.samples
        key = (name, group.name, *(buffer.address for buffer in (*more.values(), *outputs.values())))
        if key not in self._calls:
            session, graph = self._sessions.of(name, group.samples), self._sessions.next_graph()
            self._calls[key] = Call(session, group.inputs | more, outputs, graph)
        self._calls[key]()

    def _combine(self, residual: Residual, into: Buffer) -> None:
        terms = len(residual.terms)
        if terms not in self._combiners:
            model = combination_model(terms, into.dtype.name, into.shape)
            self._combiners[terms] = self._provider.open(model)
        key = ("combination", into.address, *((c, buffer.address) for c, buffer in residual.terms))
        if key not in self._calls:
            inputs = {f"term_{index}": buffer for index, (_, buffer) in enumerate(residual.terms)}
            inputs["coefficients"] = self._constant(tuple(c for c, _ in residual.terms))
            self._calls[key] = Call(self._combiners[terms], inputs, {"combined": into})
        self._calls[key]()

    def _update(self, parity: int) -> None:
        key = ("update", parity)
        if key not in self._calls:
            following = 1 - parity
            inputs = {
                "state": self._states[parity],
                "step": self._steps[parity],
                "velocity": self._velocity,
            }
            outputs = {
                "state_next": self._states[following],
                "step_next": self._steps[following],
                "hidden_states": self._hidden,
                "timestep": self._timestep,
            }
            self._calls[key] = Call(self._updater, inputs, outputs)
        self._calls[key]()

    def _constant(self, coefficients: tuple[float, ...]) -> Buffer:
        if coefficients not in self._coefficients:
            self._coefficients[coefficients] = Buffer.of(self._provider, np.asarray(coefficients, np.float32))
        return self._coefficients[coefficients]
