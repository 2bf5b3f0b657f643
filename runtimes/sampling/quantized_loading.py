"""Loading a denoiser from the files as published, and quantising it as one of the known kinds."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from budc.policies.quantization import FP8_STORAGE, TORCHAO
from budc.runtimes.sampling.loading import loading
from budc.schema.errors import MissingExtra
from budc.schema.installation import install


def load_denoiser(network_class: Any, folder: Path, name: str, dtype: torch.dtype, kind: str = "") -> Any:
    """Load the network in `folder/name` from safetensors, quantised as `kind` says; "" is not at all.

    Raises:
        WeightsMissing: it cannot be loaded.
        MissingExtra: the library of that kind is not installed.
    """
    options = {"quantization_config": _torchao_config(kind)} if kind in TORCHAO else {}
    with loading(folder / name):
        network = network_class.from_pretrained(
            folder, subfolder=name, dtype=dtype, use_safetensors=True, local_files_only=True, **options
        )
    if kind == FP8_STORAGE:
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    return network


def _torchao_config(kind: str) -> Any:
    try:
        torchao: Any = import_module("torchao.quantization")
    except ModuleNotFoundError as missing:
        raise MissingExtra(
            f"{kind} needs torchao, which is not installed", remedy=install("quantization")
        ) from missing
    from diffusers import TorchAoConfig

    return TorchAoConfig(getattr(torchao, TORCHAO[kind])())
