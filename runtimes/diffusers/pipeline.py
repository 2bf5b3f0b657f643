"""Loading a model's pipeline as its profile deploys it, from local safetensors alone.

pipe = budc.load_pipeline("wan2.1-nano")                             # its weights are part of the package
pipe = budc.load_pipeline("wan2.1", weights="/models/Wan2.1-T2V-1.3B-Diffusers")
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budc.option_names import python_names
from budc.policies.deployment import Deployment
from budc.policies.model_choice import choose_model
from budc.policies.profile import ModelProfile, find_weights
from budc.schema.arguments import instance_argument, path_argument
from budc.schema.errors import MissingExtra, UsageError, WeightsMissing
from budc.schema.installation import install

if TYPE_CHECKING:
    import torch


_DTYPES = ("float32", "bfloat16", "float16")

_SAME_DTYPE = ("FluxPipeline",)
"""Pipelines that do not cast latents to the VAE's dtype before they decode."""


def load_pipeline(
    model: str | PathLike[str] | ModelProfile,
    *,
    weights: str | PathLike[str] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: str | None = None,
) -> Any:
    """Return a model's diffusers pipeline with the profile's scheduler and dtypes. Nothing is downloaded.

    The transformer and the text encoder are in `dtype`; the VAE and an image encoder stay in float32, in which the
    compiler runs them too, unless the pipeline hands the VAE latents in the transformer's dtype.

    Args:
        model: the name of a model as `budc models` lists it, the path of a profile or of a model folder, or a profile.
        weights: the model folder; by default the weights in the package, or the hub's cache.
        device: a device of this machine, such as "cuda:1"; by default the accelerator, or the CPU.
        dtype: "float32", "bfloat16" or "float16", or torch's own; by default the profile's.
        quantize: how the denoisers are quantised, a kind that docs/models.md lists; by default the profile's.

    Raises:
        UsageError: no model has that name, there is no such device here, or `dtype` is another one.
        UnsupportedModel: a folder of no known family.
        DeviceMemory: the pipeline does not fit into the device's memory.
        WeightsMissing: there are no weights, or a part is missing or not in safetensors.
        MissingExtra: torch or diffusers is not installed.
    """
    profile = _chosen(model) if isinstance(model, str | PathLike) else model
    instance_argument(
        profile, ModelProfile, "model", "pass a name that `budc models` lists, a path, or a profile"
    )
    if quantize is not None:
        with python_names():
            profile = Deployment(quantize=quantize).deployed(profile)
    dtype_name = profile.dtype if dtype is None else str(dtype).removeprefix("torch.")
    if dtype_name not in _DTYPES:
        raise UsageError(f"dtype: {dtype}", remedy=f"use one of {', '.join(_DTYPES)}")
    folder = _folder(profile, weights)
    try:
        return _loaded(profile, folder, device, dtype_name)
    except ModuleNotFoundError as missing:
        raise MissingExtra(
            f"loading a pipeline needs {missing.name}, which is not installed (extra budc[torch])",
            remedy=install("torch"),
        ) from missing


def _loaded(profile: ModelProfile, folder: Path, device: str | torch.device | None, dtype: str) -> Any:
    import diffusers
    import torch

    from budc.runtimes.sampling.device_memory import device_memory
    from budc.runtimes.sampling.devices import find_device
    from budc.runtimes.sampling.loading import loading, scheduler_class
    from budc.runtimes.sampling.quantized_loading import load_denoiser
    from budc.runtimes.sampling.scheduler_choice import deployed_scheduler

    with python_names():
        target = find_device(device)
    scheduler = scheduler_class(profile.scheduler, profile.name)
    default = getattr(torch, dtype)
    dtypes = {
        "default": default,
        "vae": default if profile.pipeline_class in _SAME_DTYPE else torch.float32,
        "image_encoder": torch.float32,
    }
    denoisers = {
        name: load_denoiser(getattr(diffusers, kind), folder, name, default, profile.quantization)
        for name, kind in (profile.denoisers.items() if profile.quantization else ())
    }
    with loading(folder):
        pipe = getattr(diffusers, profile.pipeline_class).from_pretrained(
            folder, dtype=dtypes, use_safetensors=True, local_files_only=True, **denoisers
        )
    pipe.scheduler = deployed_scheduler(scheduler, pipe.scheduler.config, profile.scheduler_config)
    with device_memory(
        "the pipeline", 'pass device="cpu", and call enable_model_cpu_offload() on the pipeline'
    ):
        return pipe.to(target)


def _chosen(model: str | PathLike[str]) -> ModelProfile:
    if not isinstance(model, str):
        model = path_argument(model, "model", "pass a name that `budc models` lists, or a path")
    return choose_model(model, "model")


def _folder(profile: ModelProfile, weights: str | PathLike[str] | None) -> Path:
    try:
        if weights is not None:
            weights = path_argument(weights, "weights", "pass the model folder, or None")
        return find_weights(profile, weights)
    except WeightsMissing as error:
        remedy = (
            f"pass weights=, the model folder, or load {profile.try_instead!r}, which is part of the package"
        )
        raise WeightsMissing(str(error), remedy=remedy) from error
