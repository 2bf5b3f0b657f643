"""Measure: how long one forward of a loaded model takes on this machine."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from budc.compiler.models.model import Model
from budc.compiler.planning.cost import input_size
from budc.compiler.planning.dummy_inputs import dummy_inputs

_REPEATS = 3


def forward_seconds(model: Model, batch: int = 1) -> float:
    """Return the median seconds of a forward for one sample of `batch`, after one that warms up."""
    size, profile = input_size(model.profile, batch), model.profile
    name = type(model.denoiser).__name__
    config: Any = model.denoiser.config
    options = {"device": model.device, "dtype": getattr(torch, profile.dtype)}
    inputs = dummy_inputs(name, config, size, **options)
    taken = []
    with torch.no_grad():
        for _ in range(_REPEATS + 1):
            _settle(model.device)
            started = time.perf_counter()
            model.denoiser(**inputs, return_dict=False)
            _settle(model.device)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:]) / batch


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
