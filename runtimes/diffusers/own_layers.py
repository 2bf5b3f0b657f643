"""The layers of a model as it was loaded: without what adapters and `torch.compile` have put around them."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from operator import attrgetter, is_
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

_WRAPPED = ("base_layer", "_orig_mod")
"""Where PEFT's layers and compiled modules keep the module that they replace."""

_children, _parameters, _buffers = map(attrgetter, ("_modules", "_parameters", "_buffers"))


class OnDisk(NamedTuple):
    """Where a tensor is while its memory holds no values."""

    path: Path
    key: str


class ModuleTree:
    """The modules of `model` by their own names, and the names of what is in them; no tensors.

    `wrappers` are modules around these, with the path of what they wrap.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.wrappers: list[tuple[str, nn.Module]] = []
        self.visited: list[nn.Module] = []
        """All modules, wrappers too."""
        waiting = [("", model)]
        while waiting:
            path, module = waiting.pop()
            self.visited.append(module)
            while (inner := _wrapped(module)) is not None:
                self.wrappers.append((path, module))
                self.visited.append(inner)
                module = inner
            self.modules[path] = module
            prefix = f"{path}." if path else ""
            waiting += [
                (prefix + name, child) for name, child in module._modules.items() if child is not None
            ]
        self.tensor_names = [
            f"{path}.{name}" if path else name
            for path, module in self.modules.items()
            for name in (*module._parameters, *module._buffers)
        ]
        self._contents = self._inside()

    @property
    def is_current(self) -> bool:
        """Whether the model has no other modules or names since: far faster to tell than to walk through it again."""
        names, children = self._inside()
        return names == self._contents[0] and all(map(is_, children, self._contents[1]))

    def _inside(self) -> tuple[list[str], list[nn.Module | None]]:
        """Return the names of modules and tensors in every module, and the modules."""
        children = list(map(_children, self.visited))
        held = chain(children, map(_parameters, self.visited), map(_buffers, self.visited))
        # An empty name ends those of each module, so that none can move from one to the next.
        return [name for inside in held for name in (*inside, "")], list(_values(children))


class OwnLayers:
    """The modules and tensors of `model` by their own names, as they are now.

    `tree` is the model's at an earlier time: its names are taken over if they are still those of the model. `on_disk`
    are the tensors that group offloading keeps on disk. `merged` are the modules with an adapter merged into their
    weights.
    """

    def __init__(self, model: nn.Module, tree: ModuleTree | None = None) -> None:
        self.tree = tree if tree is not None and tree.is_current else ModuleTree(model)
        self.modules = self.tree.modules
        own = self.modules.values()
        tensors = _values(chain.from_iterable((module._parameters, module._buffers) for module in own))
        self.tensors: dict[str, Tensor] = {
            name: tensor
            for name, tensor in zip(self.tree.tensor_names, tensors, strict=True)
            if tensor is not None
        }
        self.merged = [
            path for path, module in self.tree.wrappers if getattr(module, "merged_adapters", None)
        ]
        hooked = (module for module in self.tree.visited if "_diffusers_hook" in module.__dict__)
        files = dict(chain.from_iterable(map(_disk_files, hooked)))
        self.on_disk: dict[str, OnDisk] = {}
        if files:
            self.on_disk = {name: files[tensor] for name, tensor in self.tensors.items() if tensor in files}


def _values(held: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    return chain.from_iterable(map(dict.values, held))  # type: ignore[arg-type]


def _wrapped(module: nn.Module) -> nn.Module | None:
    children = module._modules
    return next((children[name] for name in _WRAPPED if name in children), None)


def _disk_files(module: nn.Module) -> Iterator[tuple[Tensor, OnDisk]]:
    hook = module.__dict__["_diffusers_hook"].hooks.get("group_offloading")
    group: Any = getattr(hook, "group", None)
    if not getattr(group, "_is_offloaded_to_disk", False):
        return
    keys: Mapping[Tensor, str] = group.tensor_to_key
    for tensor, key in keys.items():
        yield tensor, OnDisk(Path(group.safetensors_file_path), key)
