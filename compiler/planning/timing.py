"""Timing: how long one forward of a loaded model takes on this machine."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from budc.compiler.models.model import LoadedModel
from budc.compiler.planning.cost import input_size
from budc.compiler.planning.dummy_inputs import dummy_inputs

_REPEATS = 3


def forward_seconds(model: LoadedModel, batch: int = 1) -> float:
    """Return the median seconds of a forward with `batch` samples, per sample; a first forward is not counted."""
    size, profile = input_size(model.profile, batch), model.profile
    denoiser: Any = model.denoiser
    name, config = type(denoiser).__name__, denoiser.config
    options = {"device": model.device, "dtype": getattr(torch, profile.dtype)}
    inputs = dummy_inputs(name, config, size, **options)
    seconds = []
    with torch.no_grad():
        for _ in range(_REPEATS + 1):
            _synchronize(model.device)
            started = time.perf_counter()
            denoiser(**inputs, return_dict=False)
            _synchronize(model.device)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]) / batch


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
