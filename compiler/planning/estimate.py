"""Estimate: what a compile will cost in forwards, device memory and hours.

The time of a forward is measured, or follows from its counted FLOPs and an assumed share of the device's peak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budc.compiler.planning.cost import Cost
from budc.compiler.planning.devices import Device
from budc.compiler.planning.forwards import CompileSettings, forwards_by_stage

UTILISATION = 0.4
"""Share of a device's peak that a forward is assumed to reach where none was measured."""


@dataclass(frozen=True)
class CompileEstimate:
    """The forwards of each stage and the seconds of one forward: `measured`, assumed, or None where unknown.

    `gradients` are the bytes that one sample's gradient takes beside the weights, 0 where none is taken.
    """

    settings: CompileSettings
    cost: Cost
    stages: Mapping[str, int]
    seconds: float | None
    measured: bool
    gradients: int

    @property
    def forwards(self) -> int:
        """The forwards of all stages."""
        return sum(self.stages.values())

    @property
    def search_forwards(self) -> int:
        """The forwards of all stages but the report."""
        return self.forwards - self.stages["report"]

    @property
    def weights(self) -> int:
        """Bytes of one denoiser; those that share a run take turns on the device."""
        return self.cost.weights

    @property
    def memory(self) -> int:
        """Bytes of device memory for one sample: one denoiser, activations, and one branch's residual."""
        return self.weights + max(self.cost.activations, self.gradients) + self.cost.residual

    def hours(self, forwards: int | None = None) -> float | None:
        """Return how long so many forwards take on the device, by default all; None where that is not known."""
        count = self.forwards if forwards is None else forwards
        return None if self.seconds is None else count * self.seconds / 3600


def estimate_compile(
    settings: CompileSettings,
    cost: Cost,
    device: Device | None = None,
    seconds: float | None = None,
    gradients: int = 0,
) -> CompileEstimate:
    """Estimate a compile.

    `seconds` are measured for one forward of one sample; without them `device` decides. `gradients` are the bytes of
    `budc.compiler.planning.cost.gradient_memory`, for a compile that aligns.
    """
    measured = seconds is not None
    if seconds is None and device is not None:
        seconds = cost.flops / (UTILISATION * device.flops)
    return CompileEstimate(settings, cost, forwards_by_stage(settings), seconds, measured, gradients)
