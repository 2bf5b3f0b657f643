"""A compile on every device of the catalogue: how long it takes there, and how it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from budc.compiler.planning.devices import DEVICES
from budc.compiler.planning.estimate import FILLING, UTILISATION, CompileEstimate
from budc.compiler.planning.memory import Fit, fit


class OnDevice(NamedTuple):
    """Hours of the compile and seconds of a forward, at the assumed share of a device's peak; how one sample fits."""

    hours: float
    seconds: float
    fit: Fit


def on_devices(estimate: CompileEstimate) -> Mapping[str, OnDevice]:
    """Return short name → what the compile takes there, fastest first; nothing for a network too small to fill one."""
    found: dict[str, OnDevice] = {}
    if estimate.cost.flops < FILLING:
        return found
    for name, device in DEVICES.items():
        seconds = device.seconds(estimate.cost.flops, UTILISATION)
        hours = estimate.time.expected * seconds / 3600
        found[name] = OnDevice(hours, seconds, fit(estimate.phases, device.memory))
    return dict(sorted(found.items(), key=lambda item: item[1].hours))
