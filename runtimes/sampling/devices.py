"""Devices: what torch can compute on here, by name."""

from __future__ import annotations

import torch

from budc.option_names import option
from budc.schema.arguments import described
from budc.schema.errors import UsageError
from budc.schema.plural import counted


def device_names() -> list[str]:
    """Return the names of the devices of this machine, such as cuda:0, cuda:1, cpu: accelerators first."""
    if not torch.accelerator.is_available():
        return ["cpu"]
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return [*(f"{kind.type}:{index}" for index in range(torch.accelerator.device_count())), "cpu"]


def find_device(name: str | torch.device | None = None) -> torch.device:
    """Return a device by its name: cpu, or the kind of an accelerator (cuda, mps, xpu) with or without its number.

    Without a name it is the accelerator of this machine, and the CPU where there is none.

    Raises:
        UsageError: there is no such device here; the error lists those that there are.
    """
    here = device_names()
    if name is None:
        return torch.device(here[0].partition(":")[0])
    text = str(name) if isinstance(name, str | torch.device) else ""
    if text not in {*here, *(known.partition(":")[0] for known in here)}:
        raise UsageError(
            f"{option('device')}: {described(text or name)} is no device of this machine",
            remedy=f"use one of {', '.join(here)}",
        )
    return torch.device(text)


def device_name(device: torch.device) -> str:
    """Return a device in words, with what measurements depend on."""
    if device.type == "cpu":
        return f"cpu, {counted(torch.get_num_threads(), 'thread')}"
    describe = getattr(getattr(torch, device.type, None), "get_device_name", None)
    return device.type if describe is None else str(describe(device))
