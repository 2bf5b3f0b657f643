"""Counting: FLOPs and memory of one forward, on the meta device, from the architecture alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import msgspec
import torch
from torch import nn

from budc.compiler.planning.dummy_inputs import InputSize, dummy_inputs
from budc.compiler.planning.parts import count_parts, tensor_bytes
from budc.compiler.planning.profiler import profile_run
from budc.policies.costs import Cost
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.trunk import Trunk

TEXT_TOKENS = 128
"""Text length assumed where it depends on the prompt."""


def model_cost(profile: ModelProfile, folder: Path | None, *, gradients: bool) -> Cost:
    """Count a forward, what a backward takes where that is asked for, and the parts beside the denoiser.

    Raises:
        UnsupportedModel: see `forward_cost`.
    """
    return msgspec.structs.replace(
        forward_cost(profile, folder),
        gradients=gradient_memory(profile, folder) if gradients else 0,
        parts=count_parts(profile, folder),
    )


def forward_cost(profile: ModelProfile, folder: Path | None = None) -> Cost:
    """Count a forward of the profile's first denoiser; its configuration is read from `folder` where one is given.

    Raises:
        UnsupportedModel: see `dummy_inputs` and `Trunk`.
    """
    model, inputs = _on_meta(profile, folder)
    trunk = Trunk(model)
    computed = profile_run(lambda: trunk.compute(**inputs))
    velocity, residual = computed.result
    sample = velocity[0] if isinstance(velocity, list) else velocity
    reused = profile_run(lambda: trunk.reuse(residual, **inputs))
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=computed.flops,
        reuse_flops=reused.flops,
        weights=tensor_bytes(model),
        one_block=_one_block(model),
        residual=residual.numel() * residual.element_size(),
        latents=sample.numel() * 4,
        activations=computed.peak_bytes,
    )


def gradient_memory(profile: ModelProfile, folder: Path | None = None) -> int:
    """Return about how many bytes a backward needs beside the weights, with checkpointed blocks.

    That is the activations between all blocks, and those inside one block (the mean), which is recomputed in turn.

    Raises:
        UnsupportedModel: see `dummy_inputs` and `Trunk`.
    """
    model, inputs = _on_meta(profile, folder)
    name = "x" if "x" in inputs else "hidden_states"
    leaf = torch.ones((), device="meta", dtype=getattr(torch, profile.dtype), requires_grad=True)
    latents = inputs[name]
    inputs[name] = [sample * leaf for sample in latents] if isinstance(latents, list) else latents * leaf
    trunk = Trunk(model)
    everything = profile_run(lambda: trunk.compute(**inputs), gradients=True).peak_bytes
    model.enable_gradient_checkpointing()
    between_blocks = profile_run(lambda: trunk.compute(**inputs), gradients=True).peak_bytes
    return between_blocks + everything // sum(len(getattr(model, span.name)) for span in trunk.family.spans)


def input_size(profile: ModelProfile, batch: int = 1) -> InputSize:
    """Return the size of a profile's output and text, for `batch` samples."""
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


def _one_block(model: nn.Module) -> int:
    """Return the bytes of what is outside all lists of blocks, and of the largest block."""
    lists = [child for child in model.children() if isinstance(child, nn.ModuleList)]
    blocks = [tensor_bytes(block) for child in lists for block in child]
    return tensor_bytes(model) - sum(blocks) + max(blocks, default=0)
