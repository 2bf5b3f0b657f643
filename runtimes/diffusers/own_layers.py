"""The layers of a model as it was loaded: without what adapters and `torch.compile` have put around them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

_WRAPPED = ("base_layer", "_orig_mod")
"""Where PEFT's layers and compiled modules keep the module that they replace."""

PLAIN = (Tensor, nn.Parameter, nn.Buffer)
"""Classes of tensors that hold their values themselves; others belong to quantisation libraries."""


class OnDisk(NamedTuple):
    """Where a tensor is while its memory holds no values."""

    path: Path
    key: str


class OwnLayers:
    """The modules and tensors of `model` by their own names, as they are now.

    `on_disk` are the tensors that group offloading keeps on disk. `merged` are the modules with an adapter merged into
    their weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.tensors: dict[str, Tensor] = {}
        self.on_disk: dict[str, OnDisk] = {}
        self.merged: list[str] = []
        files: dict[Tensor, OnDisk] = {}
        waiting = [("", model)]
        while waiting:
            path, module = waiting.pop()
            files.update(_disk_files(module))
            while (inner := _wrapped(module)) is not None:
                if getattr(module, "merged_adapters", None):
                    self.merged.append(path)
                module = inner
            self.modules[path] = module
            prefix = f"{path}." if path else ""
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None:
                    self.tensors[prefix + name] = tensor
            waiting += [
                (prefix + name, child) for name, child in module._modules.items() if child is not None
            ]
        if files:
            self.on_disk = {name: files[tensor] for name, tensor in self.tensors.items() if tensor in files}


def _wrapped(module: nn.Module) -> nn.Module | None:
    children = module._modules
    return next((children[name] for name in _WRAPPED if name in children), None)


def _disk_files(module: nn.Module) -> Iterator[tuple[Tensor, OnDisk]]:
    registry: Any = module.__dict__.get("_diffusers_hook")
    hook = None if registry is None else registry.hooks.get("group_offloading")
    group: Any = getattr(hook, "group", None)
    if not getattr(group, "_is_offloaded_to_disk", False):
        return
    keys: Mapping[Tensor, str] = group.tensor_to_key
    for tensor, key in keys.items():
        yield tensor, OnDisk(Path(group.safetensors_file_path), key)
