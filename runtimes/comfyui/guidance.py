"""Guidance: the scale that ComfyUI is given for a policy, and the rule of Qwen-Image.

That is classifier-free, each cell scaled to the norm of the conditional velocity:

    v = v_u + g (v_c - v_u),   v ← v · |v_c| / |v|     for every cell of 2 × 2 latents, over all channels

as the pipeline of diffusers does, and so as policies for it are searched. ComfyUI hands σ v to such a function; the
scale σ cancels.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from budc.runtimes.comfyui.families import ENGINE_FAMILIES
from budc.schema.policy import PolicyDocument


def guidance_input(document: PolicyDocument) -> float:
    """Return what the user enters for a policy: `cfg`, or FluxGuidance where guidance is distilled."""
    sampler = document.sampler
    if sampler.guidance_rule == "none":
        return 1.0
    family = ENGINE_FAMILIES.get(document.model.denoisers[0].class_name)
    guided = family is not None and sampler.guidance_rule == "classifier-free"
    return float(sampler.guidance) + (family.cfg_offset if family is not None and guided else 0.0)


def rescaled_guidance(given: Mapping[str, Any]) -> Tensor:
    """Return the guided σ v from `cond`, `uncond` and `cond_scale`; rows and columns are the last two axes."""
    cond, uncond = given["cond"], given["uncond"]
    guided = uncond + given["cond_scale"] * (cond - uncond)
    rescaled: Tensor = guided * (_cell_norm(cond) / _cell_norm(guided))
    return rescaled


def _cell_norm(latents: Tensor) -> Tensor:
    """Return the norm of each cell, up to a constant, at each of its latents; (B, 1, …, rows, columns)."""
    rows, columns = latents.shape[-2:]
    squares = latents.square().sum(dim=1, keepdim=True)
    planes = squares.reshape(-1, 1, rows, columns)
    norms = avg_pool2d(planes, 2, ceil_mode=True).sqrt()
    wide: Tensor = interpolate(norms, scale_factor=2, mode="nearest")
    return wide[..., :rows, :columns].reshape(squares.shape)
