"""Tensors: all memory of one denoising loop, allocated once, on the device, at fixed addresses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.exported.manifest import Manifest, TensorSpec
from budc.runtimes.onnxruntime.branches import BranchRows, slots_of
from budc.runtimes.onnxruntime.fused_steps import FusedSteps
from budc.runtimes.onnxruntime.io_binding import Buffer
from budc.runtimes.onnxruntime.provider import Provider
from budc.schema.errors import RefusedRun
from budc.schema.policy import PolicyDocument


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


class LoopBuffers:
    """What forwards and updates read and write; `begin_run` fills it for a run.

    The solver's state and the step that an update leads past are there twice, as each update reads one and writes
    the other.
    """

    def __init__(
        self,
        provider: Provider,
        manifest: Manifest,
        document: PolicyDocument,
        stretches: FusedSteps,
        groups: Sequence[BranchRows],
        batch: int,
    ) -> None:
        self._provider = provider
        self._latents = (batch, *manifest.sample)
        self._sampler, self._first_end = document.sampler, stretches.ends[0]
        self._branches = groups[-1].last
        forwards, (_, remembered, known) = self._branches * batch, stretches.matrices.shape
        slots = (known - remembered) // self._branches
        compute = manifest.graphs["compute"]
        specs = {spec.name: spec for spec in (*compute.inputs, *compute.outputs)}
        self.hidden = self._new(specs["hidden_states"], forwards)
        self.velocities = self._new(specs["velocity"], slots * forwards)
        self.embeddings = {name: self._new(specs[name], forwards) for name in manifest.conditions}
        self.timestep = Buffer.new(provider, "float32", (forwards,))
        elements = int(np.prod(self._latents))
        self.states = [Buffer.new(provider, "float32", (remembered, elements)) for _ in range(2)]
        self.until = [Buffer.new(provider, "int64", (1,)) for _ in range(2)]
        inputs = {"hidden_states": self.hidden, "timestep": self.timestep, **self.embeddings}
        # Where velocities are reused, residuals of all groups go to one place, and nowhere from there.
        reuses_velocities = document.policy.payload == "velocity"
        unused = self._new(specs["residual"], forwards) if reuses_velocities else None
        self.groups: list[Group] = []
        for rows in groups:
            ring, first, last = slots_of(document.policy, rows.name), rows.first * batch, rows.last * batch
            if unused is None:
                residuals = [self._new(specs["residual"], last - first) for _ in range(ring.count)]
            else:
                residuals = [unused.rows(0, last - first)]
            self.groups.append(
                Group(
                    name=rows.name,
                    samples=last - first,
                    inputs={name: buffer.rows(first, last) for name, buffer in inputs.items()},
                    filled=ring.filled,
                    velocities=[
                        self.velocities.rows(slot * forwards + first, slot * forwards + last)
                        for slot in range(slots)
                    ],
                    residuals=residuals,
                )
            )

    def begin_run(self, embeddings: Mapping[str, NDArray[Any]], noise: NDArray[np.float32]) -> None:
        """Write what a run starts from.

        Raises:
            RefusedRun: something is of another shape than was allocated.
        """
        given = {"noise": noise.shape} | {name: value.shape for name, value in embeddings.items()}
        wanted = {"noise": self._latents} | {name: tuple(b.shape) for name, b in self.embeddings.items()}
        for name, shape in wanted.items():
            if given.get(name) != shape:
                raise RefusedRun(f"{name}: {given.get(name, 'nothing')} was given, expected {shape}")
        state = np.zeros(self.states[0].shape, np.float32)
        state[0] = noise.reshape(-1)
        self.states[0].write(state)
        # A slot that is not filled yet counts zero times, which is a number only if what it holds is one.
        self.velocities.write(np.zeros(self.velocities.shape, self.velocities.dtype))
        self.until[0].write(np.array([self._first_end], np.int64))
        self.hidden.write(np.concatenate([noise] * self._branches))
        self.timestep.write(np.full(self.timestep.shape, self._sampler.timesteps[0], np.float32))
        for name, buffer in self.embeddings.items():
            buffer.write(embeddings[name])

    def _new(self, spec: TensorSpec, rows: int) -> Buffer:
        extents = [rows if extent is None else extent for extent in spec.shape]
        return Buffer.new(self._provider, spec.dtype, extents)
