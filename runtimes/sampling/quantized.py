"""Quantised networks: recognised as one of the known kinds, and told by the values that they compute with.

Quantisation libraries keep weights in tensor classes of their own, in integers, or packed in other objects. A network
is told by its values once they are plain numbers again (`plain_values`): those depend on the weights, on the
configuration and on which layers were quantised, and not on how a release of the library stores them.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from budc.policies.quantization import FP8_STORAGE, TORCHAO
from budc.runtimes.sampling.tensor_records import tensor_record
from budc.schema.digests import TENSORS, root_of
from budc.schema.errors import UnsupportedModel

PLAIN = (Tensor, nn.Parameter, nn.Buffer)
"""Classes of tensors that hold their values themselves; others belong to quantisation libraries."""


def quantization_of(network: nn.Module) -> str | None:
    """Return the kind by which a network is quantised; what is quantised in words if it is no known kind, None if none.

    Layers that a kind leaves alone do not count; whether it is the same ones is seen in the values.
    """
    if (storage := cast_storage(network)) is not None:
        known = storage == torch.float8_e4m3fn
        return FP8_STORAGE if known else f"weights stored as {_name(storage)}"
    found = set()
    for name, value in network.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            return f"{name} is a {type(value).__name__}"
        if _is_plain(value):
            continue
        kind = next((kind for kind in TORCHAO if _form(value) == _torchao_form(kind)), None)
        if kind is None:
            return f"{name} is a {type(value).__name__} of {_name(value.dtype)}"
        found.add(kind)
    return " and ".join(sorted(found)) or None


def plain_values(network: nn.Module) -> dict[str, Tensor]:
    """Return every tensor of a network's state as the plain numbers that it computes with.

    Raises:
        UnsupportedModel: something in its state is no tensor, so nobody can tell what it computes with.
    """
    values = {}
    for name, value in network.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            raise UnsupportedModel(
                f"{type(network).__name__}.{name} is a {type(value).__name__}, whose values cannot be read",
                remedy="use one of the kinds of quantisation that docs/models.md lists",
            )
        values[name] = (
            value.detach() if type(value) in PLAIN and not value.is_quantized else dequantized(value)
        )
    return values


def dequantized(tensor: Tensor) -> Tensor:
    """Return a tensor of a quantisation library as plain numbers."""
    return tensor.detach().dequantize()


def values_root(network: nn.Module) -> str:
    """Return the tensor root of the values that a network computes with."""
    return root_of(
        TENSORS, {name.encode(): tensor_record(tensor) for name, tensor in plain_values(network).items()}
    )


def _is_plain(value: Tensor) -> bool:
    whole = isinstance(value, nn.Parameter) and not value.dtype.is_floating_point
    return type(value) in PLAIN and not value.is_quantized and not whole


def cast_storage(network: nn.Module) -> torch.dtype | None:
    """Return the dtype in which layerwise casting keeps weights; None where it is off."""
    for module in network.modules():
        registry: Any = module.__dict__.get("_diffusers_hook")
        hook = None if registry is None else registry.hooks.get("layerwise_casting")
        if hook is not None:
            dtype: torch.dtype = hook.storage_dtype
            return dtype
    return None


@cache
def _torchao_form(kind: str) -> object:
    """Return the form of a weight that is quantised by a kind of torchao; None where that is not installed."""
    try:
        torchao: Any = import_module("torchao.quantization")
    except ModuleNotFoundError:
        return None
    layer = nn.Sequential(nn.Linear(16, 16, bias=False))
    torchao.quantize_(layer, getattr(torchao, TORCHAO[kind])())
    (weight,) = layer.parameters()
    return _form(weight)


def _form(tensor: Tensor) -> object:
    """Return what two tensors of one configuration of torchao have in common, whatever their shape and dtype."""
    block: Any = getattr(tensor, "block_size", None)
    rows = (
        None
        if block is None
        else [length == whole for length, whole in zip(block, tensor.shape, strict=False)]
    )
    return type(tensor).__qualname__, rows, repr(getattr(tensor, "act_quant_kwargs", None))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
