"""iPNDM2M for flow matching: Adams-Bashforth of two steps, with weights for uneven ones.

    x_{k+1} = x_k + h_k ((1 + w / 2) v_k - (w / 2) v_{k-1})        h_k = σ_{k+1} - σ_k,   w = h_k / h_{k-1}

The first step is Euler's. diffusers has a four-step iPNDM of its own, which is not for flow matching.
"""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from torch import Tensor


class IPNDM2MScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Flow-matching Euler with a second velocity; its schedules and settings are those of Euler."""

    _before: tuple[float, Tensor] | None = None

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **given: Any) -> Any:
        """Return the next latents."""
        if self.step_index is None:
            self._init_step_index(timestep)
        index: int = self.step_index
        gap = float(self.sigmas[index + 1] - self.sigmas[index])
        direction = model_output.to(sample.dtype)
        if index > 0 and self._before is not None:
            gap_before, velocity_before = self._before
            half = gap / gap_before / 2
            direction = (1 + half) * direction - half * velocity_before
        self._before = (gap, model_output.to(sample.dtype))
        self._step_index = index + 1
        stepped = sample + gap * direction
        if given.get("return_dict", True):
            return FlowMatchEulerDiscreteSchedulerOutput(prev_sample=stepped)
        return (stepped,)
