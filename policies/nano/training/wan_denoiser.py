"""Train a denoiser by flow matching on encoded clips, with captions phrased anew at every step.

x_sigma = (1 - sigma) x_0 + sigma eps, and the network learns the velocity eps - x_0 (Lipman et al., 2023).
One caption in eight is emptied for classifier-free guidance.
"""

from __future__ import annotations

import random

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from budc.policies.nano.data.captions import Scene, phrase, train_phrase
from budc.policies.nano.training.loop import Loss, Recipe
from budc.policies.nano.training.text_encoder import embed

RECIPES = {
    "wan2.1-nano": Recipe(steps=19_000, matrix_lr=0.01, other_lr=2e-3, average=0.9995),
    "wan2.1-mini": Recipe(steps=8_000, matrix_lr=0.01, other_lr=2e-3, average=0.999),
}
BATCH = {"wan2.1-nano": 64, "wan2.1-mini": 32}
SHIFT = 2.5
"""Noise levels are shifted towards noise, where sampling takes most of its steps."""


def denoiser_loss(
    name: str,
    transformer: WanTransformer3DModel,
    encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
    latents: Tensor,
    scenes: list[Scene],
) -> Loss:
    """Return the loss of one step: mean squared error of the velocity."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(scenes), (BATCH[name],), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        texts = [
            "" if rng.random() < 0.125 else train_phrase(scenes[index], rng, phrase)
            for index in chosen.tolist()
        ]
        with torch.no_grad():
            text = embed(encoder, tokenizer, texts)
        device = transformer.device
        clean = latents[chosen].float().to(device)
        noise = torch.randn(clean.shape, generator=generator).to(device)
        uniform = torch.rand(len(chosen), generator=generator).to(device)
        sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
        level = sigma.view(-1, 1, 1, 1, 1)
        # On CPU the backward of fused attention takes longer than all the rest of the network.
        backend = SDPBackend.MATH if device.type == "cpu" else SDPBackend.FLASH_ATTENTION
        with torch.autocast(device.type, dtype=torch.bfloat16), sdpa_kernel(backend):
            velocity = transformer(
                hidden_states=(1 - level) * clean + level * noise,
                timestep=sigma * 1000,
                encoder_hidden_states=text,
                return_dict=False,
            )[0]
        error: Tensor = velocity.float() - (noise - clean)
        return error.square().mean()

    return loss
