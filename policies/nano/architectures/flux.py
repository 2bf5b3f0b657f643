"""The components of `flux-nano`, on the classes of the FLUX.1 pipeline."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from budc.policies.nano.architectures.wan import TEXT_LAYERS, TEXT_WIDTH, remove_paths
from budc.policies.nano.text.clip_tokenizer import CLIP_TOKENS

MODEL = "flux-nano"
GUIDANCE = 3.5
STEPS = 50
POOLED_WIDTH = 64
LATENTS = 16


def build_transformer(seed: int) -> FluxTransformer2DModel:
    """Build an untrained denoiser: one double and four single blocks, guidance as an input."""
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        in_channels=4 * LATENTS,
        num_layers=1,
        num_single_layers=4,
        attention_head_dim=24,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 10, 10),
    )


def build_vae(seed: int) -> AutoencoderKL:
    """Build the untrained VAE: 8x smaller in space, 16 latent channels, no convolutions around the latents."""
    torch.manual_seed(seed)
    widths = (16, 24, 32, 32)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def build_clip(tokenizer: CLIPTokenizer, seed: int) -> CLIPTextModel:
    """Build the untrained CLIP text encoder, whose pooled state is used."""
    torch.manual_seed(seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=POOLED_WIDTH,
            intermediate_size=2 * POOLED_WIDTH,
            projection_dim=POOLED_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_t5(tokenizer: PreTrainedTokenizerFast, seed: int) -> T5EncoderModel:
    """Build the untrained T5 encoder, whose token states are used."""
    torch.manual_seed(seed)
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_ff=144, **TEXT_LAYERS))


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Build Euler with the resolution-dependent shift, as FLUX.1 [dev] deploys it."""
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift=3.0, base_shift=0.5, max_shift=1.15, num_train_timesteps=1000
    )


def save_pipeline(
    folder: Path,
    transformer: FluxTransformer2DModel,
    vae: AutoencoderKL,
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    clip_tokenizer: CLIPTokenizer,
    t5_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write a folder that `FluxPipeline.from_pretrained` loads.

    Weights are stored in float16, which halves the folder. They load as float32 unless another dtype is asked for.
    """
    pipe = FluxPipeline(
        scheduler=build_scheduler(),
        vae=vae.half(),
        text_encoder=clip.half(),
        tokenizer=clip_tokenizer,
        text_encoder_2=t5.half(),
        tokenizer_2=t5_tokenizer,
        transformer=transformer.half(),
    )
    remove_paths(pipe)
    pipe.save_pretrained(folder)
    for name in ("text_encoder", "text_encoder_2"):
        # diffusers loads its own classes as float32, transformers loads what the configuration says.
        path = folder / name / "config.json"
        path.write_text(path.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
