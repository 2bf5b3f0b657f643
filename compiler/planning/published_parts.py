"""Published parts: the encoders and VAEs that the repositories of the shipped profiles have beside the denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

T5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64} | {
    "feed_forward_proj": "gated-gelu"
}
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_VISION = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32} | {
    "num_attention_heads": 16,
    "patch_size": 14,
}
KL = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
QWEN_25 = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28} | {
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
QWEN_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16} | {
    "out_hidden_size": 3584
}
QWEN_3 = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36} | {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
LLAMA = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32} | {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128320,
}
PUBLISHED: Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]] = {
    "FluxPipeline": (
        ("T5EncoderModel", {**T5, "vocab_size": 32128}),
        ("CLIPTextModel", CLIP),
        ("AutoencoderKL", KL),
    ),
    "HunyuanVideoPipeline": (
        ("LlamaModel", LLAMA),
        ("CLIPTextModel", CLIP),
        ("AutoencoderKLHunyuanVideo", {}),
    ),
    "QwenImagePipeline": (
        (
            "Qwen2_5_VLForConditionalGeneration",
            {"text_config": QWEN_25, "vision_config": QWEN_VISION, "tie_word_embeddings": False},
        ),
        ("AutoencoderKLQwenImage", {}),
    ),
    "WanImageToVideoPipeline": (
        ("UMT5EncoderModel", {**T5, "vocab_size": 256384}),
        ("CLIPVisionModel", CLIP_VISION),
        ("AutoencoderKLWan", {}),
    ),
    "WanPipeline": (("UMT5EncoderModel", {**T5, "vocab_size": 256384}), ("AutoencoderKLWan", {})),
    "ZImagePipeline": (("Qwen3Model", QWEN_3), ("AutoencoderKL", KL)),
}
"""Pipeline class -> class and configuration of the encoders and the VAE of the shipped profiles."""
