"""A profile's pipeline with random weights, and what to call it with: embeddings in place of text encoders, no VAE."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import torch

from budc.policies.profile import ModelProfile, find_weights

PIPELINES = ("FluxPipeline", "WanPipeline")


def architecture(profile: ModelProfile) -> Mapping[str, Any]:
    """Return the transformer's settings: the profile's, or those of the model that is embedded."""
    if profile.architecture:
        return profile.architecture["transformer"]
    settings: Mapping[str, Any] = json.loads(
        (find_weights(profile, None) / "transformer" / "config.json").read_text(encoding="utf-8")
    )
    return settings


@contextmanager
def _default(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def random_pipeline(profile: ModelProfile, device: torch.device, seed: int = 0) -> Any:
    """Return the pipeline on `device` in the profile's dtype, with the random weights that its layers start from."""
    torch.manual_seed(seed)
    with _default(getattr(torch, profile.dtype), device):
        transformer = getattr(diffusers, profile.denoisers["transformer"]).from_config(architecture(profile))
    scheduler = getattr(diffusers, profile.scheduler).from_config({}, **profile.scheduler_config)
    components: dict[str, Any] = {
        "transformer": transformer.eval().requires_grad_(False),
        "scheduler": scheduler,
    }
    missing = ["text_encoder", "tokenizer", "vae"]
    if profile.pipeline_class == "FluxPipeline":
        missing += ["text_encoder_2", "tokenizer_2"]
    pipe = getattr(diffusers, profile.pipeline_class)(**dict.fromkeys(missing), **components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(profile: ModelProfile, pipe: Any, seed: int) -> dict[str, Any]:
    """Return what the pipeline is called with for one random prompt, without steps; `seed` draws prompt and noise."""
    device, dtype = pipe.transformer.device, pipe.transformer.dtype
    generator = torch.Generator(device).manual_seed(seed)

    def text(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator, device=device, dtype=dtype)

    config, tokens = pipe.transformer.config, profile.text_tokens
    assert tokens is not None, f"{profile.name} does not say how long its text is"
    given = {
        "height": profile.height,
        "width": profile.width,
        "guidance_scale": profile.guidance,
        "output_type": "latent",
        "return_dict": False,
        "generator": torch.Generator().manual_seed(seed),
    }
    if profile.pipeline_class == "FluxPipeline":
        return given | {
            "prompt_embeds": text(tokens, config.joint_attention_dim),
            "pooled_prompt_embeds": text(config.pooled_projection_dim),
        }
    return given | {
        "num_frames": profile.frames,
        "prompt_embeds": text(tokens, config.text_dim),
        "negative_prompt_embeds": text(tokens, config.text_dim),
    }


def image_tokens(profile: ModelProfile) -> int | None:
    """Return the number of cells by which FluxPipeline shifts its schedule."""
    if profile.pipeline_class != "FluxPipeline":
        return None
    return (profile.height // 16) * (profile.width // 16)
