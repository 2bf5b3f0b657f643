"""The weights of a network, by which an artifact tells it from others: tensors in memory, or safetensors files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from budc.runtimes.sampling.tensor_records import tensor_record
from budc.schema.arguments import described, path_argument
from budc.schema.digests import (
    ARCHITECTURE,
    TENSORS,
    architecture_digest,
    file_digests,
    root_of,
    shape_record,
    tensor_root,
)
from budc.schema.errors import UsageError

Weights = nn.Module | Mapping[str, Tensor] | str | PathLike[str] | Sequence[str | PathLike[str]]
"""A module, a state dict, or the paths of the safetensors files that hold one."""

REMEDY = "pass a state dict (name -> tensor), a module, or the paths of safetensors files"


@dataclass(frozen=True)
class NetworkWeights:
    """The digests of weights; where they are files, the folder and the sha256 of each below it."""

    tensor_root: str
    architecture: str
    folder: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def network_weights(weights: Any, name: str = "weights") -> NetworkWeights:
    """Return the digests of weights; `name` is the argument that holds them.

    Raises:
        UsageError: something else, files of several folders, or tensors that are not in memory.
        WeightsMissing, UnsafeWeights: a file is missing, malformed, or no safetensors file.
    """
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    if isinstance(weights, Mapping):
        return _in_memory(weights, name)
    if isinstance(weights, str | PathLike):
        return _in_files([path_argument(weights, name, REMEDY)], name)
    if isinstance(weights, Sequence) and weights:
        return _in_files([path_argument(path, name, REMEDY) for path in weights], name)
    raise UsageError(f"{name}: {described(weights)} holds no weights", remedy=REMEDY)


def _in_memory(tensors: Mapping[str, Any], name: str) -> NetworkWeights:
    if not tensors:
        raise UsageError(f"{name}: there is no tensor in it", remedy=REMEDY)
    for key, tensor in tensors.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise UsageError(f"{name}[{key!r}]: {described(tensor)} is no tensor", remedy=REMEDY)
        if tensor.is_meta:
            raise UsageError(
                f"{name}[{key!r}] is not in memory", remedy="load it, or pass the paths of files"
            )
    return NetworkWeights(
        root_of(TENSORS, {key.encode(): tensor_record(tensor) for key, tensor in tensors.items()}),
        root_of(ARCHITECTURE, {key.encode(): shape_record(tensor.shape) for key, tensor in tensors.items()}),
    )


def _in_files(paths: Sequence[Path], name: str) -> NetworkWeights:
    folder = paths[0].parent
    for path in paths:
        if path.parent != folder:
            raise UsageError(
                f"{name}: {paths[0]} and {path} are in different folders", remedy="put all files into one"
            )
        if path.suffix != ".safetensors":
            raise UsageError(
                f"{name}: {path} is no safetensors file",
                remedy="save the weights with safetensors.torch.save_file",
            )
    files = file_digests(folder, [path.name for path in paths])
    return NetworkWeights(tensor_root(paths), architecture_digest(paths), folder, files)
