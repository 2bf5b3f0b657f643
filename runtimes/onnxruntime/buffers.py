"""All memory of one denoising loop: allocated once, on the device, at fixed addresses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.exported.manifest import Manifest
from budc.runtimes.exported.signatures import TensorSpec
from budc.runtimes.onnxruntime.branches import BranchGroup, ring_buffer
from budc.runtimes.onnxruntime.fused_steps import FusedSteps
from budc.runtimes.onnxruntime.io_binding import DeviceTensor
from budc.runtimes.onnxruntime.provider import Provider
from budc.schema.errors import RefusedRun
from budc.schema.policy import PolicyDocument


@dataclass(frozen=True)
class GroupBuffers:
    """What the forwards of one branch group read and write."""

    name: str
    samples: int
    inputs: Mapping[str, DeviceTensor]
    slot_at: tuple[int, ...]
    """For each step, the slot that it fills if it is computed."""
    velocities: Sequence[DeviceTensor]
    """One a slot; a single one, which every forward overwrites, if velocities are not reused."""
    residuals: Sequence[DeviceTensor]
    """One a slot; a single one, which every forward overwrites, if residuals are not reused."""

    def velocity(self, step: int) -> DeviceTensor:
        """Return where a forward at `step` writes its velocity."""
        return self.velocities[self.slot_at[step] % len(self.velocities)]

    def residual(self, step: int) -> DeviceTensor:
        """Return where a forward at `step` writes its trunk residual."""
        return self.residuals[self.slot_at[step] % len(self.residuals)]


class LoopBuffers:
    """What forwards and updates read and write; `begin_run` fills it for a run.

    `states` and `ends` have two tensors each: an update reads one and writes the other.
    """

    def __init__(
        self,
        provider: Provider,
        manifest: Manifest,
        document: PolicyDocument,
        fused: FusedSteps,
        groups: Sequence[BranchGroup],
        batch: int,
    ) -> None:
        self._provider = provider
        self._latents = (batch, *manifest.sample)
        self._sampler, self._first_end = document.sampler, fused.ends[0]
        self._branches = groups[-1].last
        samples, state_rows = self._branches * batch, fused.matrices.shape[1]
        slots = fused.velocities // self._branches
        compute = manifest.graphs["compute"]
        self._specs = {spec.name: spec for spec in (*compute.inputs, *compute.outputs)}
        self.hidden = self._empty(self._specs["hidden_states"], samples)
        self.velocities = self._empty(self._specs["velocity"], slots * samples)
        self.embeddings = {name: self._empty(self._specs[name], samples) for name in manifest.conditions}
        self.timestep = DeviceTensor.empty(provider, "float32", (samples,))
        elements = int(np.prod(self._latents))
        self.states = [DeviceTensor.empty(provider, "float32", (state_rows, elements)) for _ in range(2)]
        self.ends = [DeviceTensor.empty(provider, "int64", (1,)) for _ in range(2)]
        """The last step of the interval that an update takes the state past."""
        # If velocities are reused nothing reads the residuals, so that all groups may write to one place.
        unread = (
            self._empty(self._specs["residual"], samples) if document.policy.payload == "velocity" else None
        )
        self.groups = [self._group(group, document, slots, unread) for group in groups]

    def _group(
        self, group: BranchGroup, document: PolicyDocument, slots: int, unread: DeviceTensor | None
    ) -> GroupBuffers:
        batch, samples = self._latents[0], self._branches * self._latents[0]
        ring = ring_buffer(document.policy, group.name, document.sampler.first_steps)
        first, last = group.first * batch, group.last * batch
        if unread is None:
            residuals = [self._empty(self._specs["residual"], last - first) for _ in range(ring.slots)]
        else:
            residuals = [unread.rows(0, last - first)]
        inputs = {"hidden_states": self.hidden, "timestep": self.timestep, **self.embeddings}
        return GroupBuffers(
            name=group.name,
            samples=last - first,
            inputs={name: tensor.rows(first, last) for name, tensor in inputs.items()},
            slot_at=ring.slot_at,
            velocities=[
                self.velocities.rows(slot * samples + first, slot * samples + last) for slot in range(slots)
            ],
            residuals=residuals,
        )

    def begin_run(self, embeddings: Mapping[str, NDArray[Any]], noise: NDArray[np.float32]) -> None:
        """Write what a run starts from.

        Raises:
            RefusedRun: an array is missing, or has another shape than was allocated.
        """
        actual = {"noise": noise.shape} | {name: array.shape for name, array in embeddings.items()}
        expected = {"noise": self._latents} | {name: t.shape for name, t in self.embeddings.items()}
        for name, shape in expected.items():
            if actual.get(name) != shape:
                raise RefusedRun(f"{name}: {actual.get(name, 'nothing')} was given, expected {shape}")
        state = np.zeros(self.states[0].shape, np.float32)
        state[0] = noise.reshape(-1)
        self.states[0].write(state)
        # An update reads slots that are not filled yet with weight 0, and 0 times NaN would be NaN.
        self.velocities.write(np.zeros(self.velocities.shape, self.velocities.dtype))
        self.ends[0].write(np.array([self._first_end], np.int64))
        self.hidden.write(np.concatenate([noise] * self._branches))
        self.timestep.write(np.full(self.timestep.shape, self._sampler.timesteps[0], np.float32))
        for name, tensor in self.embeddings.items():
            tensor.write(embeddings[name])

    def _empty(self, spec: TensorSpec, rows: int) -> DeviceTensor:
        extents = [rows if extent is None else extent for extent in spec.shape]
        return DeviceTensor.empty(self._provider, spec.dtype, extents)
