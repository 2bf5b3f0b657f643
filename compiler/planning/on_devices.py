"""A compile on every device of the catalogue: how long it takes there, and whether one sample fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from budc.compiler.planning.devices import DEVICES
from budc.compiler.planning.estimate import UTILISATION, CompileEstimate


class OnDevice(NamedTuple):
    """Hours at the assumed share of a device's peak, and the share of its memory that one sample takes."""

    hours: float
    memory: float

    @property
    def fits(self) -> bool:
        """Whether one sample fits."""
        return self.memory <= 1


def on_devices(estimate: CompileEstimate) -> Mapping[str, OnDevice]:
    """Return short name → what the compile takes there, fastest first."""
    work = estimate.forwards * estimate.cost.flops
    found = {
        name: OnDevice(work / (UTILISATION * device.flops) / 3600, estimate.memory / device.memory)
        for name, device in DEVICES.items()
    }
    return dict(sorted(found.items(), key=lambda item: item[1].hours))
