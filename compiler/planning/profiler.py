"""Watching what runs on the meta device: its FLOPs, and the memory that its tensors would take.

FLOPs count a multiply-add as two. Attention counts as fused kernels run it: its products, but no matrix of scores in
memory.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def profile_run(run: Callable[[], Any], gradients: bool = False) -> tuple[Any, float, int]:
    """Return (what `run` returns, its FLOPs, the most bytes of its tensors alive at once).

    Where `gradients` are wanted, what a backward needs stays alive; attention's stand-in has no backward to run.
    """
    gc.collect()
    attention, memory = _Attention(), _Alive()
    with torch.set_grad_enabled(gradients), FlopCounterMode(display=False) as counter, memory, attention:
        result = run()
    return result, float(counter.get_total_flops() + attention.flops), memory.peak


class _Attention(TorchFunctionMode):
    """Stands in for scaled dot product attention, which the meta device would take apart."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
        query, key, value = given["query"], given["key"], given["value"]
        shapes = [tuple(part.shape) for part in (query, key, value)]
        if shapes[0][1] != shapes[1][1]:
            # Grouped heads: each head of the keys serves several queries.
            shapes[1:] = [(shape[0], shapes[0][1], *shape[2:]) for shape in shapes[1:]]
        self.flops += sdpa_flop_count(*shapes)
        return _Kept.apply(query, key, value)  # type: ignore[no-untyped-call]


class _Kept(torch.autograd.Function):
    """Attention's shape, and what a fused kernel keeps for its backward."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, found)
        return found


class _Alive(TorchDispatchMode):
    """Adds up the memory of tensors made inside of it, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now = 0
        self.peak = 0
        self._known: set[int] = set()

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
        if storage._cdata in inputs or storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._now -= size
