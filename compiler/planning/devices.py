"""Devices: peak speed and memory of accelerators, from their makers' data sheets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from budc.schema.errors import UsageError


class Device(NamedTuple):
    """Peak `flops` per second in bfloat16 on matrix units without sparsity, and `memory` in bytes."""

    name: str
    flops: float
    memory: int

    def seconds(self, flops: float, utilisation: float) -> float:
        """Return how long so many FLOPs take at a share of the peak."""
        return flops / (utilisation * self.flops)


_GB = 10**9
DEVICES: Mapping[str, Device] = {
    # NVIDIA A100 data sheet (SXM, 80 GB); H100, H200, B200 and L40S data sheets, whose figures with sparsity are
    # halved; NVIDIA Ada GPU architecture whitepaper, products of float16 added up in float32.
    "a100": Device("NVIDIA A100 80 GB", 312e12, 80 * _GB),
    "b200": Device("NVIDIA B200", 2250e12, 180 * _GB),
    "h100": Device("NVIDIA H100 SXM", 989e12, 80 * _GB),
    "h200": Device("NVIDIA H200 SXM", 989e12, 141 * _GB),
    "l40s": Device("NVIDIA L40S", 362e12, 48 * _GB),
    "rtx4090": Device("NVIDIA GeForce RTX 4090", 165e12, 24 * _GB),
}


def device(name: str) -> Device:
    """Return a device by its short name.

    Raises:
        UsageError: there is no such device in the table.
    """
    if name.lower() not in DEVICES:
        raise UsageError(f"--device: no device named {name!r}", remedy=f"use one of {', '.join(DEVICES)}")
    return DEVICES[name.lower()]
