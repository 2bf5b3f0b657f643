"""Solvers: the schedulers that policies are bound to, in numpy, from the binding alone.

    scheduler = Scheduler(document.sampler)
    for k in range(document.sampler.steps):
        latents = scheduler.step(velocity(latents, document.sampler.timesteps[k]), latents)

Every solver here is linear in its tensors, so one step is one small matrix over what it remembers:

    [x_{k+1}, memory_{k+1}] = M_k [x_k, memory_k, v_k]

The matrices follow from the sigmas, before anything runs (`solver_matrices`). A runtime multiplies by them on the
device that holds its latents: here in numpy, in `runtimes/onnxruntime/update_graph.py` as a graph. Steps agree with
those of diffusers to 1e-6. A setting that a solver does not implement is refused by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.sampling.solvers.euler import euler_matrices
from budc.runtimes.sampling.solvers.unipc import unipc_matrices
from budc.schema.errors import UnsupportedModel
from budc.schema.policy import SamplerBinding

Matrices = NDArray[np.float64]
"""(steps, 1 + memory, 1 + memory + 1): rows are x and the memory after a step, the last column is v."""

SOLVERS: Mapping[str, Callable[[SamplerBinding], Matrices]] = {
    "FlowMatchEulerDiscreteScheduler": euler_matrices,
    "UniPCMultistepScheduler": unipc_matrices,
}


def solver_matrices(sampler: SamplerBinding) -> Matrices:
    """Return the matrix of every step of the sampler.

    Raises:
        UnsupportedModel: the scheduler, or a setting of it, has no solver here; the message names it.
    """
    if sampler.scheduler not in SOLVERS:
        raise UnsupportedModel(
            f"scheduler: {sampler.scheduler} has no solver without diffusers, only {', '.join(SOLVERS)}",
            remedy="run the policy with the diffusers runtime",
        )
    return SOLVERS[sampler.scheduler](sampler)


class Scheduler:
    """One run of a sampler, a step at a time; `begin_run` starts it over.

    Raises:
        UnsupportedModel: see `solver_matrices`.
    """

    def __init__(self, sampler: SamplerBinding) -> None:
        self._matrices = solver_matrices(sampler).astype(np.float32)
        self._memory: NDArray[np.float32] | None = None
        self.step_index = 0

    def begin_run(self) -> None:
        """Forget the steps taken."""
        self._memory = None
        self.step_index = 0

    def step(self, velocity: NDArray[Any], latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the latents of the next step from the velocity (guided, same shape) at these."""
        matrix = self._matrices[self.step_index]
        if self._memory is None:
            self._memory = np.zeros((len(matrix) - 1, latents.size), np.float32)
        state = [latents.reshape(1, -1), self._memory, velocity.reshape(1, -1).astype(np.float32)]
        after = matrix @ np.concatenate(state)
        self._memory = after[1:]
        self.step_index += 1
        return np.asarray(after[0], np.float32).reshape(latents.shape)
