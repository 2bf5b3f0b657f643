"""Forwards: the denoiser's graphs on the buffers of a denoising loop, each bound the first time it is needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from budc.runtimes.exported.signatures import TERMS, DenoiserGraph, GraphName, denoiser_graph
from budc.runtimes.onnxruntime.buffers import GroupBuffers
from budc.runtimes.onnxruntime.io_binding import BoundSession, DeviceTensor
from budc.runtimes.onnxruntime.sessions import DenoiserSessions


@dataclass(frozen=True)
class LinearCombination:
    """Σ coefficient · tensor, newest tensor first. It is added up on the device, by the graph that uses it."""

    terms: tuple[tuple[float, DeviceTensor], ...]

    @classmethod
    def single(cls, tensor: DeviceTensor) -> "LinearCombination":
        """Return 1 · `tensor`."""
        return cls(((1.0, tensor),))


def combine(coefficients: Sequence[float], cached: Sequence[LinearCombination]) -> LinearCombination:
    """Return the combination of single tensors that `StepMachine` asks for."""
    tensors = [tensor for single in cached for _, tensor in single.terms]
    return LinearCombination(tuple(zip(coefficients, tensors, strict=True)))


class DenoiserForwards:
    """Runs `compute`, `reuse` and `reuse_terms` for one branch group and step at a time.

    `denoiser_at` says which denoiser runs at a step, 0 for the first.
    """

    def __init__(self, sessions: DenoiserSessions, denoiser_at: Callable[[int], int]) -> None:
        self.samples: dict[GraphName, int] = {}
        """How many samples went through each graph since `begin_run`."""
        self.bound: dict[tuple[object, ...], BoundSession] = {}
        """By graph, group, and addresses of what differs from step to step."""
        self._sessions, self._denoiser_at = sessions, denoiser_at
        self._coefficients: dict[tuple[float, ...], DeviceTensor] = {}

    def begin_run(self) -> None:
        """Count from 0."""
        self.samples.clear()

    def compute(self, group: GroupBuffers, step: int) -> None:
        """Run the whole denoiser, and write the velocity and the trunk residual of `step`."""
        outputs = {"velocity": group.velocity(step), "residual": group.residual(step)}
        self._run("compute", step, group, {}, outputs)

    def reuse(self, group: GroupBuffers, step: int, residual: LinearCombination) -> None:
        """Run the denoiser with `residual` in place of its blocks, and write the velocity of `step`."""
        coefficients = tuple(coefficient for coefficient, _ in residual.terms)
        tensors = [tensor for _, tensor in residual.terms]
        outputs = {"velocity": group.velocity(step)}
        if coefficients == (1.0,):
            self._run("reuse", step, group, {"residual": tensors[0]}, outputs)
            return
        # `reuse_terms` always takes TERMS residuals: the newest one, with coefficient 0, fills the rest.
        missing = TERMS - len(tensors)
        padded = [*tensors, *[tensors[0]] * missing]
        inputs = {f"residual_{index}": tensor for index, tensor in enumerate(padded)}
        inputs["coefficients"] = self._constant((*coefficients, *[0.0] * missing))
        self._run("reuse_terms", step, group, inputs, outputs)

    def _run(
        self,
        mode: DenoiserGraph,
        step: int,
        group: GroupBuffers,
        inputs: Mapping[str, DeviceTensor],
        outputs: Mapping[str, DeviceTensor],
    ) -> None:
        name = denoiser_graph(mode, self._denoiser_at(step))
        self.samples[name] = self.samples.get(name, 0) + group.samples
        key = (name, group.name, *(tensor.address for tensor in (*inputs.values(), *outputs.values())))
        if key not in self.bound:
            session, cuda_graph = self._sessions.open(name, group.samples), self._sessions.next_cuda_graph()
            self.bound[key] = BoundSession(
                session, {**group.inputs, **inputs}, outputs, cuda_graph, self._sessions.provider.run_turn
            )
        self.bound[key].run()

    def _constant(self, coefficients: tuple[float, ...]) -> DeviceTensor:
        if coefficients not in self._coefficients:
            array = np.asarray(coefficients, np.float32)
            self._coefficients[coefficients] = DeviceTensor.of(self._sessions.provider, array)
        return self._coefficients[coefficients]
