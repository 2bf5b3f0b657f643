"""Updates: guidance and solver from one forward to the next, on the buffers of a denoising loop."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.onnxruntime.buffers import LoopBuffers
from budc.runtimes.onnxruntime.fused_steps import FusedSteps
from budc.runtimes.onnxruntime.io_binding import BoundSession
from budc.runtimes.onnxruntime.sessions import DenoiserSessions
from budc.runtimes.onnxruntime.update_graph import update_model


class SolverUpdates:
    """Runs the update graph, which takes the solver's state past one interval of `fused` steps.

    The state lies in two tensors. An update reads one and writes the other, so that the last update can be
    repeated for fewer steps (`end_at`).
    """

    def __init__(
        self,
        sessions: DenoiserSessions,
        buffers: LoopBuffers,
        fused: FusedSteps,
        timesteps: Sequence[float],
        latents: Sequence[int],
    ) -> None:
        self.count = 0
        """Updates since `begin_run`."""
        self.bound: dict[int, BoundSession] = {}
        """By the index of the state that is read."""
        self._sessions, self._buffers, self._fused = sessions, buffers, fused
        branches = buffers.hidden.shape[0] // latents[0]
        model = update_model(fused, timesteps, branches, latents, buffers.hidden.dtype.name)
        self._session = sessions.provider.open(model, captured=True)

    @property
    def latents(self) -> NDArray[np.float32]:
        """The latents now, as one row, copied from the device."""
        return np.asarray(self._buffers.states[self.count % 2].read()[0], np.float32)

    def begin_run(self) -> None:
        """Start from the state that `LoopBuffers.begin_run` wrote."""
        self.count = 0

    def advance(self, step: int) -> None:
        """Take the state past the interval that starts at `step`, if one does."""
        if step in self._fused.ends:
            self._run()

    def end_at(self, step: int) -> None:
        """Make the latents those after `step`, where the last update has taken them past a later step."""
        if step not in self._fused.ends.values():
            self.count -= 1
            self._buffers.ends[self.count % 2].write(np.array([step], np.int64))
            self._run()

    def _run(self) -> None:
        current, following = self.count % 2, 1 - self.count % 2
        if current not in self.bound:
            buffers = self._buffers
            inputs = {
                "state": buffers.states[current],
                "until": buffers.ends[current],
                "velocities": buffers.velocities,
            }
            outputs = {
                "state_next": buffers.states[following],
                "until_next": buffers.ends[following],
                "hidden_states": buffers.hidden,
                "timestep": buffers.timestep,
            }
            cuda_graph = self._sessions.next_cuda_graph()
            self.bound[current] = BoundSession(
                self._session, inputs, outputs, cuda_graph, self._sessions.provider.run_turn
            )
        self.bound[current].run()
        self.count += 1
