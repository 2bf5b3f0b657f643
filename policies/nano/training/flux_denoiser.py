"""Train the denoiser of `flux-nano` in two stages, as FLUX.1 [dev] is said to have been trained.

The teacher learns by flow matching with one caption in eight emptied. Its guidance input is always 1, which means no
guidance. The student starts from the teacher's weights and learns the teacher's guided velocity,
uncond + g (cond - uncond), with g as its input (Meng et al., 2023), so that one forward replaces two.
"""

from __future__ import annotations

import random

import torch
from diffusers import FluxTransformer2DModel
from msgspec.structs import astuple
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from budc.policies.nano.data.captions import train_phrase
from budc.policies.nano.data.pictures import Picture, phrase
from budc.policies.nano.training.flux_latents import positions
from budc.policies.nano.training.flux_text import TextEncoders
from budc.policies.nano.training.loop import Loss, Recipe

TEACHER = Recipe(steps=9_000, matrix_lr=0.01, other_lr=2e-3, average=0.999, save_every=250)
STUDENT = Recipe(steps=2_000, matrix_lr=0.004, other_lr=8e-4, average=0.99, save_every=250)
BATCH = 32
PHRASINGS = 32
"""Captions of the train split that are drawn and encoded for each different picture."""
SHIFT = 2.0
"""Noise levels are shifted towards noise, where the content of a picture is decided."""
SCALES = (1.0, 6.0)
"""Range of the guidance scales that the student learns."""


class TrainingData:
    """Packed latents (N, cells, 4C), the picture of each, and encoded captions for each."""

    def __init__(self, latents: Tensor, pictures: list[Picture], encoders: TextEncoders, seed: int) -> None:
        self.latents = latents
        side = int(latents.shape[1] ** 0.5)
        self.img_ids = positions(side, side)
        different = sorted(set(pictures), key=astuple)
        rng = random.Random(seed)
        captions = [train_phrase(picture, rng, phrase) for picture in different for _ in range(PHRASINGS)]
        indices = {picture: index for index, picture in enumerate(different)}
        self._picture_index = torch.tensor([indices[picture] for picture in pictures])
        batches = [encoders(captions[first : first + 256]) for first in range(0, len(captions), 256)]
        self.states = {
            name: torch.cat([states[name] for states in batches]).half()
            for name in ("encoder_hidden_states", "pooled_projections")
        }
        self.empty = encoders([""])

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a batch: clean latents, noise, noise levels (B,), and the index of a caption for each (B,)."""
        chosen = torch.randint(len(self.latents), (BATCH,), generator=generator)
        phrasing = torch.randint(PHRASINGS, (BATCH,), generator=generator)
        clean = self.latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        uniform = torch.rand(BATCH, generator=generator)
        sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
        return clean, noise, sigma, self._picture_index[chosen] * PHRASINGS + phrasing

    def texts(self, captions: Tensor, emptied: Tensor) -> dict[str, Tensor]:
        """Return the encoded captions (B, ...) of these indices (B,), the empty caption where `emptied` (B,)."""
        inputs = {}
        for name, states in self.states.items():
            mask = emptied.view(-1, *(1,) * (states.ndim - 1))
            inputs[name] = torch.where(mask, self.empty[name], states[captions].float())
        return {**inputs, "txt_ids": self.empty["txt_ids"]}


def velocity(
    transformer: FluxTransformer2DModel,
    data: TrainingData,
    noisy: Tensor,
    sigma: Tensor,
    guidance: Tensor,
    texts: dict[str, Tensor],
) -> Tensor:
    """Predict eps - x_0 at noise levels (B,) and guidance scales (B,), with the inputs that FluxPipeline gives."""
    device = transformer.device
    # On CPU the backward of fused attention takes longer than all the rest of the network.
    backend = SDPBackend.MATH if device.type == "cpu" else SDPBackend.FLASH_ATTENTION
    inputs = {
        "hidden_states": noisy,
        "timestep": sigma,
        "guidance": guidance,
        "img_ids": data.img_ids,
        **texts,
    }
    with torch.autocast(device.type, dtype=torch.bfloat16), sdpa_kernel(backend):
        output: Tensor = transformer(
            **{name: tensor.to(device) for name, tensor in inputs.items()}, return_dict=False
        )[0]
    return output.float()


def teacher_loss(transformer: FluxTransformer2DModel, data: TrainingData) -> Loss:
    """Return the loss of one step of the teacher: mean squared error of the velocity."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        clean, noise, sigma, captions = data.draw(generator)
        emptied = torch.rand(BATCH, generator=generator) < 0.125
        level = sigma.view(-1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        texts = data.texts(captions, emptied)
        predicted = velocity(transformer, data, noisy, sigma, torch.ones(BATCH), texts)
        return (predicted - (noise - clean).to(predicted.device)).square().mean()

    return loss


def student_loss(
    student: FluxTransformer2DModel, teacher: FluxTransformer2DModel, data: TrainingData
) -> Loss:
    """Return the loss of one step of the student: mean squared error to the teacher's guided velocity."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        clean, noise, sigma, captions = data.draw(generator)
        low, high = SCALES
        scale = low + (high - low) * torch.rand(BATCH, generator=generator)
        level = sigma.view(-1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        emptied = torch.ones(BATCH, dtype=torch.bool)
        texts, empty_texts = data.texts(captions, ~emptied), data.texts(captions, emptied)
        with torch.no_grad():
            no_guidance = torch.ones(BATCH)
            cond = velocity(teacher, data, noisy, sigma, no_guidance, texts)
            uncond = velocity(teacher, data, noisy, sigma, no_guidance, empty_texts)
            target = uncond + scale.view(-1, 1, 1).to(uncond.device) * (cond - uncond)
        predicted = velocity(student, data, noisy, sigma, scale, texts)
        return (predicted - target).square().mean()

    return loss
