"""Precision: float32 without TF32, for comparisons to a tolerance that only float32 reaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Let convolutions on CUDA keep all bits of their inputs, for the length of a with-block or a function.

    By default cuDNN rounds them to TF32, which has 10 bits of mantissa where float32 has 23: a patch embedding and a
    VAE then differ from the CPU's by more than the tolerance. Matrix products are not rounded by default.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
