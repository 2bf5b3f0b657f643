"""Identity: what tells one network from another, so that no search resumes with what another network has measured.

A module is told by its class, its structure, and the bytes of its weights. What else a forward depends on (its code,
a Python object that it holds) is not seen. A function cannot be told from another one at all: its user must do that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from budc.runtimes.sampling.quantized import plain_values
from budc.schema.digests import TENSORS, root_of, value_record
from budc.schema.errors import UnsupportedModel


@runtime_checkable
class Identified(Protocol):
    """A denoiser that can be told from others."""

    def identity(self) -> object:
        """Return JSON values that are equal for equal denoisers; None where that cannot be known."""


def identity_of(denoiser: object) -> object:
    """Return what identifies a denoiser, as JSON values; None where it cannot be told from another one."""
    return denoiser.identity() if isinstance(denoiser, Identified) else None


def module_identity(module: nn.Module) -> Mapping[str, object]:
    """Return class, structure and weights of a module.

    Parameters and buffers count, persistent or not, and every public attribute that is a number, a text, or a list
    of such: the number of attention heads, for example, is in no weight.

    Raises:
        UnsupportedModel: a weight is not in memory, or is packed in an object of a quantisation library.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers()), **plain_values(module)}
    absent = [name for name, tensor in tensors.items() if tensor.is_meta]
    if absent:
        raise UnsupportedModel(
            f"{type(module).__name__}.{absent[0]} is not in memory, so that this network cannot be told from another",
            remedy="load it, or pass weights=, a text that names its weights",
        )
    return {
        "class": class_name(module),
        "structure": hashlib.sha256(repr(module).encode()).hexdigest(),
        "attributes": {
            f"{name}.{key}": repr(value)
            for name, part in module.named_modules()
            for key, value in vars(part).items()
            if not key.startswith("_") and _is_plain(value)
        },
        "weights": root_of(TENSORS, {name.encode(): _record(t) for name, t in tensors.items()}),
    }


def tensor_digest(tensor: Tensor) -> str:
    """Return the sha256 of a tensor's dtype, shape and values, in hex."""
    return hashlib.sha256(_record(tensor)).hexdigest()


def class_name(instance: object) -> str:
    """Return the full name of an object's class."""
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def _record(tensor: Tensor) -> bytes:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return value_record(str(tensor.dtype), tensor.shape, hashlib.sha256(raw.data).digest())


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
