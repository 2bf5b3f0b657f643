"""The denoising loop: from noise to final latents under one policy, all of it in device memory.

At each step the step machine tells every branch group to compute or to reuse; `DenoiserForwards` runs the graph for
it and `SolverUpdates` takes the latents to the next step. Branches that share mask and coefficients run as one batch.
If the policy reuses velocities and guidance is linear, one update takes all steps up to the next forward
(`fused_steps`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.exported.signatures import GraphName
from budc.runtimes.onnxruntime.branches import (
    group_branches,
    guidance_weights,
    guided_branches,
    rescales_guidance,
)
from budc.runtimes.onnxruntime.buffers import GroupBuffers, LoopBuffers
from budc.runtimes.onnxruntime.forwards import DenoiserForwards, LinearCombination, combine
from budc.runtimes.onnxruntime.fused_steps import fuse_steps, rescaled_steps, unfused_steps
from budc.runtimes.onnxruntime.sessions import DenoiserSessions
from budc.runtimes.onnxruntime.updates import SolverUpdates
from budc.runtimes.sampling.solvers import solver_matrices
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.schema.policy import PolicyDocument

OnStep = Callable[[int], object]
"""Called after each step with its index; returning False ends the run there."""


class DenoisingLoop:
    """A policy, ready to run on batches of one size.

    Raises:
        UnsupportedModel: the sampler has no solver here.
    """

    def __init__(self, sessions: DenoiserSessions, document: PolicyDocument, batch: int = 1) -> None:
        manifest, policy = sessions.manifest, document.policy
        self.document = document
        first_steps = document.sampler.first_steps
        self.machine: StepMachine[LinearCombination] = StepMachine(policy, combine, first_steps)
        self._reuses_velocities = policy.payload == "velocity"
        self._branches = list(guided_branches(document, manifest.branches))
        groups = group_branches(policy, self._branches, first_steps)
        weights = guidance_weights(document, manifest.branches)
        solver = solver_matrices(document.sampler)
        if rescales_guidance(document, manifest.branches):
            fused = rescaled_steps(solver, policy, groups, weights)
        elif self._reuses_velocities:
            fused = fuse_steps(solver, policy, groups, weights, first_steps)
        else:
            fused = unfused_steps(solver, weights)
        self._buffers = LoopBuffers(sessions.provider, manifest, document, fused, groups, batch)
        self._forwards = DenoiserForwards(sessions, document.sampler.expert_at)
        self._exclusive = sessions.exclusive
        latents = (batch, *manifest.sample)
        self._updates = SolverUpdates(sessions, self._buffers, fused, document.sampler.timesteps, latents)
        self._used: dict[str, LinearCombination] = {}
        """The velocity of each branch group in the last step."""

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
            on_step: called after each step; an exception from it ends the run and leaves nothing behind.

        Raises:
            RefusedRun: an array is missing, or does not have the shape that the loop was made for; or a run of the
                pipeline is under way in this thread. One in another thread is waited for.
        """
        return self.timed_run(embeddings, noise, on_step)[0]

    def timed_run(
        self,
        embeddings: Mapping[str, NDArray[Any]],
        noise: NDArray[np.float32],
        on_step: OnStep | None = None,
    ) -> tuple[NDArray[np.float32], float]:
        """Do as `run` does; return the final latents and the seconds that it took, without the wait for other runs."""
        with self._exclusive.begin():
            started = time.perf_counter()
            latents = self._run(embeddings, noise, on_step)
            return latents, time.perf_counter() - started

    def _run(
        self, embeddings: Mapping[str, NDArray[Any]], noise: NDArray[np.float32], on_step: OnStep | None
    ) -> NDArray[np.float32]:
        self._buffers.begin_run(embeddings, noise)
        self._forwards.begin_run()
        self._updates.begin_run()
        self.machine.begin_run()
        try:
            for step in range(self.document.sampler.steps):
                for group in self._buffers.groups:
                    self._used[group.name] = self._velocity(group, step)
                self._updates.advance(step)
                if on_step is not None and on_step(step) is False:
                    self._updates.end_at(step)
                    break
        finally:
            self.machine.begin_run()
        return self._updates.latents.reshape(noise.shape)

    @property
    def forwards(self) -> Mapping[GraphName, int]:
        """How many samples went through each of the denoiser's graphs in the last run."""
        return self._forwards.samples

    @property
    def velocities(self) -> dict[str, NDArray[Any]]:
        """The velocity of each branch in the last step (B, ...), copied from the device."""
        groups = []
        for group in self._buffers.groups:
            terms = self._used[group.name].terms
            groups.append(np.sum([c * tensor.read().astype(np.float32) for c, tensor in terms], axis=0))
        by_branch = np.split(np.concatenate(groups), len(self._branches))
        return dict(zip(self._branches, by_branch, strict=True))

    def _velocity(self, group: GroupBuffers, step: int) -> LinearCombination:
        """Return the velocity of a group at `step`, having run whatever graph it needs."""
        action = self.machine.step(group.name, step)
        velocity = LinearCombination.single(group.velocity(step))
        if isinstance(action, Compute):
            self._forwards.compute(group, step)
            residual = LinearCombination.single(group.residual(step))
            self.machine.record(group.name, velocity if self._reuses_velocities else residual)
        elif self._reuses_velocities:
            return action.cached
        else:
            self._forwards.reuse(group, step, action.cached)
        return velocity
