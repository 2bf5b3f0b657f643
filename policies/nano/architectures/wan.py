"""The components of `wan2.1-nano` and `wan2.1-mini`, on the classes of the Wan2.1 pipeline.

The two differ in the transformer alone; tokenizer, text encoder, VAE and scheduler are shared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import PreTrainedModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

MODELS = ("wan2.1-nano", "wan2.1-mini")
GUIDANCE = 5.0
STEPS = 50
FLOW_SHIFT = 5.0
TEXT_WIDTH = 96
TEXT_LAYERS: dict[str, Any] = {
    "d_kv": 24,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 32,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "eos_token_id": 1,
}
"""Settings that the T5 and UMT5 text encoders of all embedded models share."""

_TRANSFORMERS: dict[str, dict[str, int]] = {
    "wan2.1-nano": {"num_attention_heads": 4, "attention_head_dim": 24, "ffn_dim": 384, "num_layers": 4},
    "wan2.1-mini": {"num_attention_heads": 8, "attention_head_dim": 32, "ffn_dim": 896, "num_layers": 6},
}


def build_transformer(name: str, seed: int) -> WanTransformer3DModel:
    """Build the untrained denoiser of one of `MODELS`."""
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        rope_max_seq_len=64,
        **_TRANSFORMERS[name],
    )


def build_vae(seed: int) -> AutoencoderKLWan:
    """Build the untrained VAE: 8x smaller in space, 4x in time, 16 latent channels."""
    torch.manual_seed(seed)
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=16,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        latents_mean=[0.0] * 16,
        latents_std=[1.0] * 16,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast, seed: int) -> UMT5EncoderModel:
    """Build the untrained UMT5 encoder, two layers that suffice for the captions."""
    torch.manual_seed(seed)
    return UMT5EncoderModel(
        UMT5Config(vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_ff=192, **TEXT_LAYERS)
    )


def build_scheduler() -> UniPCMultistepScheduler:
    """Build UniPC with flow sigmas, as Wan2.1 deploys it."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=FLOW_SHIFT,
        num_train_timesteps=1000,
        solver_order=2,
        solver_type="bh2",
    )


def save_pipeline(folder: Path, transformer: Any, vae: Any, text_encoder: Any, tokenizer: Any) -> None:
    """Write a folder that `WanPipeline.from_pretrained` loads, without any path of this machine."""
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        scheduler=build_scheduler(),
        transformer=transformer,
    )
    remove_paths(pipe)
    pipe.save_pretrained(folder)


def remove_paths(pipe: DiffusionPipeline) -> None:
    """Remove from every configuration of a pipeline the path from which its component was loaded."""
    for component in (pipe, *pipe.components.values()):
        if hasattr(component, "_internal_dict"):
            config = component._internal_dict
            component._internal_dict = type(config)({**config, "_name_or_path": ""})
        elif isinstance(component, PreTrainedModel):
            component.config._name_or_path = ""
        elif component is not None:
            component.name_or_path = ""
