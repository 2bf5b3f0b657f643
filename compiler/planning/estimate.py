"""Estimate: what a compile will cost in forwards, device memory and hours.

The time of a forward is measured, or follows from its counted FLOPs and an assumed share of the device's peak.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from budc.compiler.planning.count import Count
from budc.compiler.planning.devices import Device
from budc.compiler.planning.forwards import CompileSettings, decoded_for_loss, forwards_by_stage, recomputed
from budc.compiler.planning.memory import Phase, phases
from budc.policies.costs import Cost

UTILISATION = 0.4
"""Share of a device's peak that a forward is assumed to reach where none was measured."""

FILLING = 1e11
"""FLOPs of the smallest forward for which a device's peak says how long it takes: smaller ones do not fill it."""


@dataclass(frozen=True)
class CompileEstimate:
    """The forwards of each stage and the seconds of one forward: `measured`, assumed, or None where unknown."""

    settings: CompileSettings
    cost: Cost
    stages: Mapping[str, Count]
    seconds: float | None
    measured: bool

    @property
    def recomputed(self) -> int:
        """The forwards that an alignment computes again: part of the time, and of no stage's forwards."""
        return recomputed(self.settings)

    @property
    def total(self) -> Count:
        """The forwards of all stages."""
        return Count.total(self.stages.values())

    @property
    def forwards(self) -> int:
        """The forwards of all stages that are expected."""
        return self.total.expected

    @property
    def time(self) -> Count:
        """How many forwards all stages take as long as."""
        return Count.total([self.total, Count.exactly(self.recomputed)])

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What each phase has on the device."""
        return phases(self.settings.profile, self.cost, align=self.settings.align)

    @property
    def memory(self) -> int:
        """Bytes of device memory that one sample takes where every part is whole; parts that are not known left out."""
        return max(phase.whole or phase.reduced for phase in self.phases)

    @property
    def decoded(self) -> int:
        """How many samples the VAE decodes for the loss of a second stage, which no forwards and no hours have."""
        return decoded_for_loss(self.settings) if self.settings.frame_loss else 0

    @property
    def hours_without_report(self) -> float | None:
        """How long all stages but the report take on the device; None where that is not known."""
        return self.hours(self.time.expected - self.stages["report"].expected)

    def hours(self, forwards: int | None = None) -> float | None:
        """Return how long so many forwards take on the device, by default all stages; None where that is not known."""
        count = self.time.expected if forwards is None else forwards
        return None if self.seconds is None else count * self.seconds / 3600


def estimate_compile(
    settings: CompileSettings, cost: Cost, device: Device | None = None, seconds: float | None = None
) -> CompileEstimate:
    """Estimate a compile.

    `seconds` are measured for one forward of one sample; without them `device` decides, unless the forward is too
    small to fill it.
    """
    measured = seconds is not None
    if seconds is None and device is not None and cost.flops >= FILLING:
        seconds = device.seconds(cost.flops, UTILISATION)
    return CompileEstimate(settings, cost, forwards_by_stage(settings, cost), seconds, measured)
