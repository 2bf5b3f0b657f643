"""Profiler: FLOPs and peak memory of what runs on the meta device.

A multiply-add counts as two FLOPs. Attention counts as fused kernels run it: its matrix products, without the matrix of
scores in memory.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


class RunProfile(NamedTuple):
    """What a run returned, its FLOPs, and the most bytes of its tensors that were alive at once."""

    result: Any
    flops: float
    peak_bytes: int


def profile_run(run: Callable[[], Any], gradients: bool = False) -> RunProfile:
    """Profile a run on the meta device.

    With `gradients`, tensors that a backward needs stay alive. The backward itself cannot be run.
    """
    gc.collect()
    attention, memory = _AttentionMode(), _MemoryMode()
    with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter, memory, attention:
        result = run()
    return RunProfile(result, float(counter.get_total_flops() + attention.flops), memory.peak)


class _AttentionMode(TorchFunctionMode):
    """Replaces scaled dot product attention, which the meta device would run as separate operations."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        arguments = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        query, key, value = (arguments[name] for name in ("query", "key", "value"))
        shapes = [tuple(tensor.shape) for tensor in (query, key, value)]
        if shapes[0][1] != shapes[1][1]:
            # Grouped heads: one head of the keys serves several heads of the queries.
            shapes[1:] = [(shape[0], shapes[0][1], *shape[2:]) for shape in shapes[1:]]
        self.flops += sdpa_flop_count(*shapes)
        return _FusedAttention.apply(query, key, value)  # type: ignore[no-untyped-call]


class _FusedAttention(torch.autograd.Function):
    """Attention that has only a shape, and keeps for its backward what a fused kernel keeps."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output)
        return output


class _MemoryMode(TorchDispatchMode):
    """Adds up the bytes of the tensors that are created inside it, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bytes = 0
        self.peak = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs or {}))
            if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf, inputs)
        return result

    def _count(self, tensor: Tensor, inputs: set[int]) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in inputs or storage._cdata in self._storages:
            return
        self._storages.add(storage._cdata)
        self._bytes += storage.nbytes()
        self.peak = max(self.peak, self._bytes)
        weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, storage: int, size: int) -> None:
        self._storages.discard(storage)
        self._bytes -= size
