"""Weights: is the MODEL the one that the policy is bound to?

ComfyUI loads single files, whose bytes no policy lists. So the weights in memory, without LoRA, are taken under their
names in diffusers, and their tensor root (`budc.schema.digests`) is compared with the policy's: the same values in
another file are the same model. Weights that were cast to another precision or quantised have other values. They can
not be checked, and are refused unless uncalibrated runs are allowed; a network of another architecture always is.
"""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.comfyui.families import EngineFamily
from budc.runtimes.comfyui.weight_names import diffusers_tensors
from budc.runtimes.sampling.tensor_records import tensor_record
from budc.schema.digests import ARCHITECTURE, TENSORS, root_of, shape_record
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import DenoiserBinding

NETWORK = "diffusion_model."
"""What the names of a MODEL's own weights begin with in ComfyUI."""

_SCALES = ("scale_weight", "scale_input", "weight_scale", "input_scale", "scaled_fp8", "comfy_quant")
"""Ends of the names of tensors that quantised files have beside their weights."""

_HALF = {torch.bfloat16, torch.float16}

_roots: WeakKeyDictionary[Any, tuple[str, ...]] = WeakKeyDictionary()
"""A loaded model → its tensor roots: every prompt has the same weights, and hashing them takes seconds."""


def verify_weights(
    patcher: Any, denoiser: DenoiserBinding, family: EngineFamily, settings: SettingsCheck
) -> None:
    """Verify the network of `patcher`, a MODEL, against `denoiser`, its binding in the policy.

    Raises:
        WeightsMismatch: it has other weights, or settings; weights of the same architecture pass with a warning where
            uncalibrated runs are allowed.
    """
    tensors = dict(_tensors(patcher, family))
    architecture = root_of(
        ARCHITECTURE, {name.encode(): shape_record(tensor.shape) for name, tensor in tensors.items()}
    )
    if architecture != denoiser.architecture:
        raise WeightsMismatch(
            f"{denoiser.name} in this MODEL has other tensors than the policy is for, or of other shapes",
            remedy="load the model that the policy was compiled for",
        )
    _check_settings(patcher, denoiser, family)
    if patcher.model not in _roots:
        _roots[patcher.model] = tuple(_tensor_roots(tensors))
    roots = _roots[patcher.model]
    if denoiser.tensor_root not in roots:
        found = f"has tensor root {_short(roots[0])}" if roots else "is quantised, and cannot be checked"
        what = f"{denoiser.name} in this MODEL {found}, the policy is for {_short(denoiser.tensor_root)}"
        remedy = "load a file with the weights of the policy's own model at their own precision"
        if not settings.allow:
            further = "transfer the policy to this file's weights as the README of the nodes says"
            raise WeightsMismatch(what, remedy=f"{remedy}, {further}, or turn on allow_uncalibrated")
        settings.differ("weights", what, remedy)


def _tensors(patcher: Any, family: EngineFamily) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights by their names in diffusers, as they were before any LoRA was merged into them."""
    channels = getattr(patcher.model.diffusion_model, "hidden_size", 0)
    for name, value in patcher.model_state_dict(NETWORK).items():
        if name.endswith(_SCALES):
            continue
        merged = patcher.backup.get(name)
        tensor = value if merged is None else merged.weight
        yield from diffusers_tensors(family.names, name.removeprefix(NETWORK), tensor, channels)


def _tensor_roots(tensors: dict[str, Tensor]) -> Iterator[str]:
    """Yield the tensor roots that the file may have had; none where values are quantised or not in memory.

    ComfyUI keeps a few layers in float32 whatever the file has, and all of them where the device is slow in half
    precision. So the next are those of the tensors with float32 ones in half precision, where that loses nothing.
    """
    if not all(_has_values(tensor) for tensor in tensors.values()):
        return
    yield _root(tensors)
    wide = {name: tensor for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    dtypes = [tensor.dtype for tensor in tensors.values()]
    usual = max(set(dtypes), key=dtypes.count)
    for dtype in _HALF if usual == torch.float32 else _HALF & {usual}:
        casts = {name: tensor.to(dtype) for name, tensor in wide.items()}
        narrowed = {name: cast for name, cast in casts.items() if _same(cast, wide[name])}
        if narrowed and (usual == dtype or len(narrowed) == len(wide)):
            yield _root({**tensors, **narrowed})


def _has_values(tensor: Tensor) -> bool:
    """Return whether a tensor is plain numbers in memory. Quantised ones are subclasses with values of their own."""
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta


def _same(cast: Tensor, tensor: Tensor) -> bool:
    return torch.equal(cast.to(tensor.dtype), tensor)


def _root(tensors: dict[str, Tensor]) -> str:
    return root_of(TENSORS, {name.encode(): tensor_record(tensor) for name, tensor in tensors.items()})


def _short(root: str) -> str:
    return root.removeprefix("sha256:")[:12]


def _check_settings(patcher: Any, denoiser: DenoiserBinding, family: EngineFamily) -> None:
    """Compare settings that tensors do not show. ComfyUI reads them off the file's shapes."""
    listed = denoiser.config or {}
    for name, actual in family.settings(patcher.model.diffusion_model).items():
        if name in listed and listed[name] != actual:
            raise WeightsMismatch(
                f"{denoiser.name} was loaded with {name} {actual!r}, the policy is for {listed[name]!r}",
                remedy="load the model that the policy was compiled for",
            )
