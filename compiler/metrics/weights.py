"""Weights of a metric's network: safetensors only, each tensor with the name and the shape that the network expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from accelerate import init_empty_weights
from safetensors.torch import load_file
from torch import Tensor, nn

from budc.runtimes.sampling.loading import loading
from budc.schema.errors import UnsafeWeights, UnsupportedModel, WeightsMissing
from budc.schema.tensors import open_weights, read_header

Network = TypeVar("Network", bound=nn.Module)

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_REMEDY = "docs/metrics.md says whose files go there and how they are converted"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        WeightsMissing: it is not there.
        UnsafeWeights: it is no safetensors file, or there is a pickle instead of it.
    """
    if not path.exists():
        for pickled in (path.with_suffix(suffix) for suffix in _PICKLES):
            if pickled.exists():
                raise UnsafeWeights(f"{pickled} may be a pickle, which is not opened", remedy=_REMEDY)
        raise WeightsMissing(f"{path} is not there", remedy=_REMEDY)
    with open_weights(path) as file:
        read_header(file, path)
    with loading(path):
        tensors: dict[str, Tensor] = load_file(path)
        return tensors


def take(tensors: Mapping[str, Tensor], name: str, shape: Sequence[int], path: Path) -> Tensor:
    """Return a tensor in float32.

    Raises:
        UnsupportedModel: the file has no tensor of that name and shape.
    """
    found = tensors.get(name)
    if found is None or tuple(found.shape) != tuple(shape):
        has = "it is not there" if found is None else f"it is {tuple(found.shape)}"
        raise UnsupportedModel(
            f"{path}: tensor {name} of shape {tuple(shape)} is expected, and {has}", remedy=_REMEDY
        )
    return found.float()


def with_weights(make: Callable[[], Network], weight: Callable[[str, tuple[int, ...]], Tensor]) -> Network:
    """Return the network that `make` makes, frozen, with `weight(name, shape)` for each of its parameters.

    Its parameters take no memory before they have their values; its buffers are made as ever.
    """
    with init_empty_weights(include_buffers=False):
        network = make()
    values = {name: weight(name, tuple(value.shape)) for name, value in network.named_parameters()}
    network.load_state_dict(values, strict=False, assign=True)
    return network.requires_grad_(False).eval()


def load_tokenizer(kind: Any, folder: Path, tokens: int) -> Any:
    """Return the tokenizer of class `kind` in a folder.

    Raises:
        WeightsMissing: it cannot be loaded.
        UnsupportedModel: it has another number of tokens.
    """
    with loading(folder):
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != tokens:
        raise UnsupportedModel(
            f"{folder}: the tokenizer knows {len(tokenizer)} tokens, the network {tokens}", remedy=_REMEDY
        )
    return tokenizer
