"""Memory of the device: every way in which torch says that it ran out, as one error that says what would help."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from budc.schema.errors import DeviceMemory


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or in the host.

    CUDA and XPU have a class for it. MPS and the allocator of the CPU raise a plain RuntimeError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        said in text for said in ("out of memory", "can't allocate memory", "not enough memory")
    )


@contextmanager
def device_memory(what: str, remedy: str = "") -> Iterator[None]:
    """Use the device's memory in the with-block, or in a function that is decorated.

    Raises:
        DeviceMemory: `what` does not fit into it; the error has the `remedy`.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemory(f"{what} does not fit into the memory of the device", remedy=remedy) from error


def free_unused_memory() -> None:
    """Give back what nothing refers to any more: objects in cycles, and what torch keeps for its next tensors."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
