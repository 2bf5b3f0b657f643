"""Cost: what one forward of a model takes, counted on the meta device from its architecture alone.

FLOPs count a multiply-add as two. Attention counts as fused kernels run it: its products, but no matrix of scores in
memory.
"""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from budc.compiler.probe import Extent, probe
from budc.policies.profile import ModelProfile
from budc.runtimes.trunk import Trunk

TEXT_TOKENS = 128
"""Text length counted where the prompt decides it."""


@dataclass(frozen=True)
class Cost:
    """Of one sample and one branch: `flops` computed and `reuse_flops` reused; in bytes, `weights` of one denoiser,
    `residual` of its trunk, and `activations`, the most that is alive at once beside the weights.
    """

    parameters: int
    flops: float
    reuse_flops: float
    weights: int
    residual: int
    activations: int


def count(profile: ModelProfile, folder: Path | None = None) -> Cost:
    """Count a forward of the profile's first denoiser; its settings are read from `folder` where one is given.

    Raises:
        UnsupportedModel: see `probe` and `Trunk`.
    """
    name, class_name = next(iter(profile.denoisers.items()))
    settings: Mapping[str, Any] = profile.architecture.get(name, {})
    if folder is not None:
        settings = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, profile.dtype)
    with torch.device("meta"):
        model = getattr(diffusers, class_name).from_config(settings).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        inputs = probe(class_name, model.config, extent(profile), device="meta", dtype=dtype)
    trunk = Trunk(model)
    (_, residual), flops, activations = _watched(lambda: trunk.compute(**inputs))
    _, reuse_flops, _ = _watched(lambda: trunk.reuse(residual, **inputs))
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=flops,
        reuse_flops=reuse_flops,
        weights=_bytes(model),
        residual=residual.numel() * residual.element_size(),
        activations=activations,
    )


def extent(profile: ModelProfile, batch: int = 1) -> Extent:
    """Return what a profile's forward is given."""
    return Extent(profile.frames, profile.height, profile.width, profile.text_tokens or TEXT_TOKENS, batch)


def _bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _watched(run: Callable[[], Any]) -> tuple[Any, float, int]:
    """Return (what `run` returns, its FLOPs, the most bytes of its tensors alive at once)."""
    gc.collect()
    attention, memory = _Attention(), _Alive()
    with torch.no_grad(), FlopCounterMode(display=False) as counter, memory, attention:
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
        return query.new_empty(*query.shape[:-1], value.shape[-1])


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
