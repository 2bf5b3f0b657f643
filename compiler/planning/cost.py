"""Cost: what one forward of a model takes, counted on the meta device from its architecture alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from budc.compiler.planning.dummy_inputs import InputSize, dummy_inputs
from budc.compiler.planning.profiler import profile_run
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.trunk import Trunk

TEXT_TOKENS = 128
"""Text length counted where the prompt decides it."""


@dataclass(frozen=True)
class Cost:
    """Of one sample and one branch: `flops` computed and `reuse_flops` reused; in bytes, `weights` of one denoiser,
    `residual` of its trunk, and `activations`, the most that is alive at once beside the weights.
    """

    parameters: int
    flops: float
    reuse_flops: float
    weights: int
    residual: int
    activations: int


def forward_cost(profile: ModelProfile, folder: Path | None = None) -> Cost:
    """Count a forward of the profile's first denoiser; its settings are read from `folder` where one is given.

    Raises:
        UnsupportedModel: see `probe` and `Trunk`.
    """
    model, inputs = _on_meta(profile, folder)
    trunk = Trunk(model)
    (_, residual), flops, activations = profile_run(lambda: trunk.compute(**inputs))
    _, reuse_flops, _ = profile_run(lambda: trunk.reuse(residual, **inputs))
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=flops,
        reuse_flops=reuse_flops,
        weights=_bytes(model),
        residual=residual.numel() * residual.element_size(),
        activations=activations,
    )


def gradient_memory(profile: ModelProfile, folder: Path | None = None) -> int:
    """Return about how many bytes a gradient through a forward keeps beside the weights, blocks checkpointed.

    That is what lies between blocks, and what one block keeps while its turn of the backward lasts: their mean.

    Raises:
        UnsupportedModel: see `probe` and `Trunk`.
    """
    model, inputs = _on_meta(profile, folder)
    name = "x" if "x" in inputs else "hidden_states"
    leaf = torch.ones((), device="meta", dtype=getattr(torch, profile.dtype), requires_grad=True)
    given = inputs[name]
    inputs[name] = [part * leaf for part in given] if isinstance(given, list) else given * leaf
    trunk = Trunk(model)
    _, _, whole = profile_run(lambda: trunk.compute(**inputs), gradients=True)
    model.enable_gradient_checkpointing()
    _, _, between = profile_run(lambda: trunk.compute(**inputs), gradients=True)
    return between + whole // sum(len(getattr(model, span.name)) for span in trunk.family.spans)


def input_size(profile: ModelProfile, batch: int = 1) -> InputSize:
    """Return what a profile's forward is given."""
    return InputSize(profile.frames, profile.height, profile.width, profile.text_tokens or TEXT_TOKENS, batch)


def _on_meta(profile: ModelProfile, folder: Path | None) -> tuple[Any, dict[str, Any]]:
    name, class_name = next(iter(profile.denoisers.items()))
    settings: Mapping[str, Any] = profile.architecture.get(name, {})
    if folder is not None:
        settings = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, profile.dtype)
    with torch.device("meta"):
        model = getattr(diffusers, class_name).from_config(settings).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        return model, dummy_inputs(class_name, model.config, input_size(profile), device="meta", dtype=dtype)


def _bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
