"""Precision: what a model computes in, wherever that is set, compared with a policy's dtype."""

from typing import Any

import torch
from torch import nn

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.own_layers import OwnLayers
from budc.schema.policy import PolicyDocument

_IMAGE_ENCODERS = ("image_encoder", "vae")
"""Always in float32 at calibration."""

_EXACT = ("ieee", "none")
"""torch's names for float32 products that are not shortened."""


def check_weights(
    calibrated: str, transformer: Any, layers: OwnLayers, settings: SettingsCheck, *, quantized: bool = False
) -> None:
    """Compare the dtype of `transformer`, and of every weight in its `layers`, with `calibrated`, a dtype's name.

    Weights may be in float32 too: models keep a few in it. Those of a `quantized` one are what its kind makes them.
    """
    settings.require(
        "dtype", calibrated, _name(transformer.dtype), "load the pipeline in the calibrated dtype"
    )
    allowed = (getattr(torch, calibrated), torch.float32)
    if quantized:
        return
    for name, tensor in layers.tensors.items():
        if tensor.dtype not in allowed and isinstance(tensor, nn.Parameter):
            settings.require(
                "dtype",
                calibrated,
                f"{name} in {_name(tensor.dtype)}",
                "load the pipeline in the calibrated dtype, without layerwise casting or quantisation",
            )
            break


def check_arithmetic(calibrated: str, device: str, settings: SettingsCheck) -> None:
    """Compare what torch computes in on a kind of device: autocast is off, float32 products are not shortened."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        computed = f"autocast to {_name(torch.get_autocast_dtype(device))}"
        settings.require("dtype", calibrated, computed, "run the pipeline outside of torch.autocast")
    if calibrated == "float32" and (products := _float32_products(device)) not in _EXACT:
        settings.require(
            "dtype",
            calibrated,
            f"matrix products in {products}",
            'call torch.set_float32_matmul_precision("highest")',
        )


def check_encoders(document: PolicyDocument, pipe: Any, settings: SettingsCheck) -> None:
    """Compare the dtype of each encoder that the pipeline has: of text, and of images where the policy has some."""
    calibrated = document.pipeline().shape.dtype
    for name, component in pipe.components.items():
        dtype = getattr(component, "dtype", None)
        if name.startswith("text_encoder") and isinstance(dtype, torch.dtype):
            remedy = f"load the pipeline with all of it in {calibrated}"
            settings.require(f"dtype of {name}", calibrated, _name(dtype), remedy)
        if document.images and name in _IMAGE_ENCODERS and isinstance(dtype, torch.dtype):
            settings.require(f"dtype of {name}", "float32", _name(dtype), f"pipe.{name}.to(torch.float32)")


def _float32_products(device: str) -> str:
    """Return the precision of float32 matrix products on a kind of device, as torch names it."""
    backends: Any = torch.backends
    own = (backends.cuda if device == "cuda" else backends.mkldnn).matmul.fp32_precision
    return str(own if own != "none" else backends.fp32_precision)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
