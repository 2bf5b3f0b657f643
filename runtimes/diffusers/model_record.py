"""A record of a model at `apply`, with which the beginning of each run notices what has changed since.

It holds the identity of every module and attention processor, the type, dtype and shape of every tensor, and a few of
its values. Merging an adapter, for example, leaves the parameter objects as they are and changes only values.
Offloading moves storage and changes none of this: values that are not in memory are not compared.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn

from budc.runtimes.diffusers.own_layers import OwnLayers
from budc.runtimes.sampling.quantized import PLAIN

SAMPLES = 4
"""How many values of a tensor are compared, evenly spaced, the first among them. An edit of others is not noticed."""

_DTYPE, _SHAPE = attrgetter("dtype"), attrgetter("shape")


class ModelRecord:
    """What `layers` are now."""

    def __init__(self, layers: OwnLayers) -> None:
        self._modules = layers.modules
        self._processors = _processors(layers.modules)
        self._kinds = _kinds(layers.tensors)
        self._values = _sampled_values(layers, skipped=())

    def change(self, layers: OwnLayers, *, adapters_allowed: bool) -> str | None:
        """Return the first difference of `layers` from this record in words; None where there is none.

        `adapters_allowed`: weights with an adapter merged into them may differ.
        """
        if (name := _first_difference(self._modules, layers.modules)) is not None:
            return f"module {name} was {_what_happened(name, self._modules, layers.modules)}"
        processors = _processors(layers.modules)
        if (name := _first_difference(self._processors, processors)) is not None:
            return (
                f"the attention processor of {name} was {_what_happened(name, self._processors, processors)}"
            )
        if (kinds := _kinds(layers.tensors)) != self._kinds:
            before, now = _by_name(self._kinds), _by_name(kinds)
            if names := [name for name in now.keys() | before if now.get(name) != before.get(name)]:
                name = min(names)
                return f"{name} was {_described(before.get(name))}, is {_described(now.get(name))}"
        values = _sampled_values(layers, skipped=layers.merged if adapters_allowed else ())
        changed = [name for name, sample in values.items() if self._values.get(name, sample) != sample]
        return f"values of {min(changed)} were changed" if changed else None


def _processors(modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    return {
        path: processor
        for path, module in modules.items()
        if (processor := module.__dict__.get("processor")) is not None
    }


def _kinds(tensors: Mapping[str, Tensor]) -> tuple[list[Any], ...]:
    """Return names, types, dtypes and shapes: lists, which are made faster than a tuple for each tensor."""
    own = tensors.values()
    return list(tensors), list(map(type, own)), list(map(_DTYPE, own)), list(map(_SHAPE, own))


def _by_name(kinds: Iterable[Iterable[Any]]) -> dict[str, tuple[type, torch.dtype, torch.Size]]:
    return {name: (cls, dtype, shape) for name, cls, dtype, shape in zip(*kinds, strict=True)}


def _first_difference(before: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    """Return the first name, if any, whose object is another one: compared by identity, not by value."""
    if before is now or (before.keys() == now.keys() and all(map(is_, map(before.get, now), now.values()))):
        return None
    return min(name for name in before.keys() | now.keys() if before.get(name) is not now.get(name))


def _what_happened(name: str, before: Mapping[str, object], now: Mapping[str, object]) -> str:
    if name not in now:
        return "removed"
    return f"replaced by a {type(now[name]).__name__}" if name in before else "added"


def _described(kind: tuple[type, torch.dtype, torch.Size] | None) -> str:
    if kind is None:
        return "not there"
    cls, dtype, shape = kind
    return f"a {cls.__name__} of {str(dtype).removeprefix('torch.')} {tuple(shape)}"


def _sampled_values(layers: OwnLayers, skipped: Collection[str]) -> dict[str, bytes]:
    return sampled_values(
        {
            name: tensor
            for name, tensor in layers.tensors.items()
            if name not in layers.on_disk and not (skipped and name.rpartition(".")[0] in skipped)
        }
    )


@torch.no_grad()
def sampled_values(tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Return the bytes of a few values of each tensor; few copies from the device, whatever the number of tensors.

    Tensors whose values are not in memory are left out.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = defaultdict(list)
    for name, tensor in tensors.items():
        if type(tensor) not in PLAIN or tensor.is_meta or not (count := tensor.numel()):
            continue
        flat = tensor if tensor.is_contiguous() else tensor.reshape(-1)
        groups[tensor.device, tensor.dtype].append((name, flat.as_strided(*_spread(count))))
    values: dict[str, bytes] = {}
    for group in groups.values():
        values.update(_cut(group))
    return values


@cache
def _spread(count: int) -> tuple[tuple[int], tuple[int]]:
    """Return size and stride of up to `SAMPLES` of so many values."""
    taken = min(SAMPLES, count)
    return (taken,), ((count - 1) // max(1, taken - 1),)


def _cut(group: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, bytes]]:
    names, samples = zip(*group, strict=True)
    data = torch.cat(samples).cpu().view(torch.uint8).numpy().tobytes()
    begin = 0
    size = samples[0].element_size()
    for name, sample in zip(names, samples, strict=True):
        end = begin + len(sample) * size
        yield name, data[begin:end]
        begin = end
