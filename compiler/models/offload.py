"""Offloading: of the networks of a model, only what computes next is on the device.

Each denoiser is loaded when it is first needed, so that the text encoders are gone by then. "model": one denoiser is on
the device as a whole, and leaves it before another one comes. "group": the blocks of a denoiser come one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, overload

import torch
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn

from budc.option_names import option
from budc.runtimes.sampling.device_memory import device_memory, free_unused_memory

Offload = Literal["model", "group"]
_CPU = torch.device("cpu")


class Denoisers(Sequence[nn.Module]):
    """The denoisers of a model in the order in which they run, loaded when they are first asked for.

    `load`: a function for each denoiser that loads it to the CPU.
    """

    def __init__(
        self, load: Sequence[Callable[[], nn.Module]], device: torch.device, offload: Offload = "model"
    ) -> None:
        self.device = device
        self._load = tuple(load)
        self._offload = offload
        self._loaded: dict[int, nn.Module] = {}
        self._onloaded: int | None = None
        self._groups: dict[int, list[Any]] = {}
        """Denoiser -> its groups of blocks, as diffusers moves them."""

    def __len__(self) -> int:
        return len(self._load)

    @overload
    def __getitem__(self, index: int) -> nn.Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[nn.Module]: ...
    def __getitem__(self, index: int | slice) -> nn.Module | Sequence[nn.Module]:
        """Return denoisers, wherever their weights lie."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        if number not in self._loaded:
            self._loaded[number] = self._load[number]()
        return self._loaded[number]

    def onloaded(self, index: int) -> nn.Module:
        """Return a denoiser that computes on the device, with all others off it.

        Raises:
            DeviceMemory: it does not fit into the device's memory.
        """
        if self._onloaded != index:
            self.offload()
            denoiser = self[index]
            with device_memory("the denoiser", _remedy(self._offload)):
                self._onload(index, denoiser)
            self._onloaded = index
        for group in self._groups.get(index, ()):
            # A forward that ran out of memory has left blocks behind.
            if any(tensor.device.type != "cpu" for tensor in _tensors(group)):
                group.offload_()
        return self[index]

    def offload(self) -> None:
        """Take the denoiser that is on the device off it."""
        if self._onloaded is not None and self._onloaded not in self._groups and self.device.type != "cpu":
            self[self._onloaded].to(_CPU)
            free_unused_memory()
        self._onloaded = None

    def _onload(self, index: int, denoiser: nn.Module) -> None:
        if self._offload == "model":
            denoiser.to(self.device)
        elif index not in self._groups:
            # Without streams: they fetch the block that came next in the first forward, and a reused step or a
            # backward pass goes on with another one.
            apply_group_offloading(
                denoiser, self.device, _CPU, offload_type="block_level", num_blocks_per_group=1
            )
            self._groups[index] = _groups(denoiser)


def _groups(denoiser: nn.Module) -> list[Any]:
    registries = [getattr(module, "_diffusers_hook", None) for module in denoiser.modules()]
    hooks = [registry.get_hook("group_offloading") for registry in registries if registry is not None]
    return [hook.group for hook in hooks if hook is not None]


def _tensors(group: Any) -> Iterator[Tensor]:
    for module in group.modules:
        yield from islice(module.parameters(), 1)
    yield from group.parameters[:1]


def _remedy(offload: Offload) -> str:
    if offload == "group":
        return "use a device with more memory"
    return f"use {option('offload', 'group')}, or a device with more memory"
