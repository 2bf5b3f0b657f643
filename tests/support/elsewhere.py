"""Elsewhere: a device that is not the CPU, on machines that have none.

Its tensors say that they are on the device `ELSEWHERE`, while their values lie on the CPU. One that meets a tensor of the
CPU fails, as it would on CUDA, and so does one that is asked for its numpy array. What it cannot show is what CUDA's own
kernels, allocator and streams do. Its memory can be limited: tensors beyond that raise `torch.OutOfMemoryError`.

`ELSEWHERE` is torch's meta device, as that is the only other one that every build of torch has a gradient for.
"""

import copy
import gc
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")

# Copies go from device to device, and indices may lie on the CPU.
_TRAVELLERS = {"aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put", "aten::index_put_"}


class StrangerError(RuntimeError):
    """Tensors of two devices met."""


class Memory:
    """The bytes of all tensors elsewhere that are alive, the most that there were, and how many there may be."""

    def __init__(self) -> None:
        self.begin()

    def begin(self, limit: float = math.inf) -> None:
        """Count from nothing: what an earlier test has kept alive is not this one's."""
        self.used = self.peak = 0
        self.limit = limit
        self._storages: set[int] = set()

    def count(self, values: Tensor) -> None:
        """Count the storage of a new tensor, until it is freed."""
        storage = values.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        if self.used + size > self.limit:
            raise torch.OutOfMemoryError(f"{size} bytes more than {self.used}, of {self.limit} at most")
        self._storages.add(key)
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(storage, self._free, self._storages, key, size)

    def _free(self, storages: set[int], key: int, size: int) -> None:
        storages.discard(key)
        if storages is self._storages:
            self.used -= size


MEMORY = Memory()


class Remote(Tensor):
    """A tensor elsewhere; `values` is it, here."""

    values: Tensor
    is_meta = False  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: Tensor) -> "Remote":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=ELSEWHERE,
        )
        made.values = values
        MEMORY.count(values)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"Remote({self.values})"

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()


class _Machine(TorchDispatchMode):
    """Sees calls that have no tensor elsewhere among their arguments, but make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]


class _Constants(TorchFunctionMode):
    """Makes constants here and moves them: torch.tensor hides from the mode above."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == _SET_DATA and any(isinstance(value, Remote) for value in args):
            # A tensor cannot change its type in place; the module's parameter becomes the other one.
            own, data = args
            parameter = torch.nn.Parameter(data.detach(), requires_grad=own.requires_grad)
            torch.utils.swap_tensors(own, parameter if isinstance(own, torch.nn.Parameter) else data.detach())
            return None
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **(kwargs | {"device": "cpu"})).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def elsewhere(limit: float = math.inf) -> Iterator[torch.device]:
    """A block in which tensors and modules can be moved to the device, and what is computed there is computed.

    `limit`: the bytes that its tensors may have together.
    """
    gc.collect()
    MEMORY.begin(limit)
    replaced = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # Offloading asks for the functions of the device's streams, of which there are none.
    torch.meta = torch.cpu  # type: ignore[attr-defined]
    try:
        with _Machine(), _Constants():
            yield ELSEWHERE
    finally:
        MEMORY.limit = math.inf
        del torch.meta  # type: ignore[attr-defined]
        torch.__future__.set_overwrite_module_params_on_conversion(replaced)


@contextmanager
def here() -> Iterator[None]:
    """A block within `elsewhere` in which the libraries have the meta device for themselves, as they do when they load."""
    with _disable_current_modes():
        yield


def moved(model: Any, offload: Any = "model") -> Any:
    """Return a copy of a `budc.compiler.models.model.LoadedModel` that computes there; use it within `elsewhere`."""
    from budc.compiler.models.offload import Denoisers

    with here():
        load = [partial(copy.deepcopy, denoiser) for denoiser in model.denoisers]
    return replace(model, denoisers=Denoisers(load, ELSEWHERE, offload), device=ELSEWHERE)


def rollouts(model: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the final latents of a policy of either payload, (2, N, ...), rolled out here and there."""
    from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
    from budc.compiler.evaluation.reference import encode_prompts
    from budc.compiler.rollouts.policies import shared_policy
    from budc.schema.mask import StepMask
    from budc.schema.predictor import Predictor

    mask = StepMask.of([True, False, False, True, False, False])
    plain = shared_policy(mask, Predictor.plain_reuse(mask), model.profile.branches)
    sampler, conditions = model.sampler(mask.steps), encode_prompts(model, prompts, range(len(prompts)))
    policies = [msgspec.structs.replace(plain, payload=payload) for payload in ("trunk-residual", "velocity")]
    here = torch.stack([PipelineRollout(model).run(policy, sampler, conditions) for policy in policies])
    with elsewhere():
        rollout = PipelineRollout(moved(model), batch=1)
        there = [rollout.run(policy, sampler, conditions) for policy in policies]
    return here, torch.stack(there)


def _call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    remote = any(isinstance(value, Remote) for value in given)
    if remote and func._schema.name not in _TRAVELLERS:
        # A tensor without dimensions is a number, and goes anywhere.
        strange = [tuple(value.shape) for value in given if not isinstance(value, Remote) and value.ndim]
        if strange:
            raise StrangerError(f"{func._schema.name}: {strange} are here, the others elsewhere")
    if (device := kwargs.get("device")) is not None:
        remote = torch.device(device) == ELSEWHERE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    near_args, near_kwargs = tree_map(_near, (args, kwargs))
    made = func(*near_args, **near_kwargs)
    # What an operation changes in place is what it was given, and returned as such.
    known = {id(_near(value)): value for value in given}
    return tree_map(
        lambda value: known[id(value)] if id(value) in known else _far(value) if remote else value, made
    )


def _near(value: Any) -> Any:
    return value.values if isinstance(value, Remote) else value


def _far(value: Any) -> Any:
    return Remote(value) if isinstance(value, Tensor) else value
