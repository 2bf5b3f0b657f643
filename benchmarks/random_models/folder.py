"""A model folder with a denoiser of real size and random weights; text encoder and VAE are small."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from budc.policies.nano.architectures.wan import TEXT_LAYERS, build_vae, save_pipeline
from budc.policies.nano.text.tokenizer import build_tokenizer
from budc.policies.profile import ModelProfile
from random_models.pipeline import architecture


def random_folder(profile: ModelProfile, folder: Path, seed: int = 0) -> Path:
    """Write a folder that `WanPipeline.from_pretrained` loads, its transformer of the profile's architecture.

    Text states have the width that the transformer takes; the vocabulary is the embedded models'.
    """
    torch.manual_seed(seed)
    settings, tokenizer = architecture(profile), build_tokenizer()
    text = UMT5Config(vocab_size=len(tokenizer), d_model=settings["text_dim"], d_ff=192, **TEXT_LAYERS)
    save_pipeline(
        folder,
        WanTransformer3DModel.from_config(settings).eval(),
        build_vae(seed).eval(),
        UMT5EncoderModel(text).eval(),
        tokenizer,
    )
    return folder
