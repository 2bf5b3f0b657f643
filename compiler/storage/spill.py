"""Spilling: tensors that are kept for long lie in a file where the memory of the host is short.

The file is mapped into memory and has no name any more, so that nothing is left behind when a process is killed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import psutil
import torch
from torch import Tensor

from budc.schema.errors import OutputError

RESERVE = 0.25
"""Share of the host's memory that kept tensors leave free."""


def kept(tensor: Tensor, folder: Path) -> Tensor:
    """Return a tensor of the CPU to keep: itself, or a copy in a file of `folder` where memory is short.

    Raises:
        OutputError: the folder's disk is full.
    """
    if _fits(0):
        return tensor
    return _in_file(tensor.shape, tensor.dtype, folder).copy_(tensor)


def empty(shape: Sequence[int], dtype: torch.dtype, folder: Path) -> Tensor:
    """Return a tensor to be filled, in memory or in a file of `folder`. Raises OutputError: see `kept`."""
    if _fits(prod(shape) * dtype.itemsize):
        return torch.empty(tuple(shape), dtype=dtype)
    return _in_file(shape, dtype, folder)


def _fits(size: int) -> bool:
    memory = psutil.virtual_memory()
    return bool(memory.available - size > RESERVE * memory.total)


def _in_file(shape: Sequence[int], dtype: torch.dtype, folder: Path) -> Tensor:
    count = prod(shape)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="spilled-") as file:
            # Reserved now: a mapping that finds the disk full later ends the process.
            os.posix_fallocate(file.fileno(), 0, max(count * dtype.itemsize, 1))
            return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(tuple(shape))
    except OSError as error:
        raise OutputError(
            f"{folder}: what rollouts keep could not be written: {error.strerror}",
            remedy="make room there, and run the same command again",
        ) from error
